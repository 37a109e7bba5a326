"""From what a user names (a file, a run, a hub id) to the file and the card of its origin."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm

from hounsfield.errors import WeightsError, first_line
from hounsfield.files import read_object
from hounsfield.models.weights_file import WeightsFile, read_weights

IMAGENET = "imagenet"  # as a source: timm's default ImageNet weights of the backbone

RUN_FILES = ("encoder.safetensors", "classifier.safetensors", "model.safetensors")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_FILE_ENDINGS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")  # not looked for on a hub
_HUB_ID = re.compile(r"(?P<hub>hf[-_]hub:)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_HASHED_NAME = re.compile(r".+-([0-9a-f]{8,64})\.(?:pth|pt|bin|safetensors)")
_IN = re.compile(r"in(1k|12k|21k|22k)")  # the corpus in timm's tags: a1_in1k, fb_in22k_ft_in1k


@dataclass(frozen=True)
class Card:
    """Where weights come from, as far as the file tells; an empty string where it does not.

    Attributes:
        source: What was asked for.
        file: The file's name, without the folders of this machine.
        sha256: Of the file.
        origin: Who published it, or which kind of run of ours wrote it.
        licence: As its publisher names it.
        corpus: The images that it has seen.
        stores: Hashes of the stores that one of our own runs has seen.
        method: The pre-training method, where it is one of ours.
        backbone: The network that it was loaded into.
        channels: Input channels of the file's first layer.
        prefix: What stood before the backbone's own names.
        matched: How many of the backbone's tensors came from the file: all of them.
        unused: Tensors of the file that the backbone has no use for: heads, other networks.
        notes: What was changed on the way, or is worth knowing.
    """

    source: str
    file: str
    sha256: str
    origin: str = ""
    licence: str = ""
    corpus: str = ""
    stores: tuple[str, ...] = ()
    method: str = ""
    backbone: str = ""
    channels: int = 0
    prefix: str = ""
    matched: int = 0
    unused: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The card as plain values, as JSON would give them back."""
        values = asdict(self).items()
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values}


def find(source: str | Path, *, backbone: str = "") -> tuple[Card, WeightsFile]:
    """The file behind a source, read, and the card of what is known before it is loaded.

    Args:
        source: A file, a run folder, a Hugging Face hub id (`owner/name`, `owner/name@revision`,
            also after `hf-hub:`), or `"imagenet"`.
        backbone: Whose ImageNet weights `"imagenet"` means.

    Raises:
        WeightsError: Nothing is there, or it cannot be read safely.
    """
    path = Path(source)
    if path.is_dir():
        file = read_weights(_in_run(path))
        return _card(str(source), file, _beside(file.path)), file
    if path.exists():
        file = read_weights(path)
        return _card(str(source), file, _beside(path)), file
    name = _imagenet_id(backbone) if str(source) == IMAGENET else str(source)
    hub = _HUB_ID.fullmatch(name)
    if hub is None or (path.suffix in _FILE_ENDINGS and not hub["hub"]):
        raise WeightsError(
            f"no file at {source}. Give a checkpoint file, a run folder, a Hugging Face hub id "
            f"(owner/name), or {IMAGENET!r}."
        )
    return _from_hub(str(source), hub["repo"], hub["revision"])


def _in_run(folder: Path) -> Path:
    for name in RUN_FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(
        f"{folder} holds none of {', '.join(RUN_FILES)}. If it is a run that is not finished, "
        "finish it (run the same command again); otherwise give the weights file itself."
    )


def _imagenet_id(backbone: str) -> str:
    config = timm.models.get_pretrained_cfg(backbone) if timm.is_model(backbone) else None
    if config is None or not config.hf_hub_id:
        raise WeightsError(
            f"no ImageNet weights are published for the backbone {backbone!r}. Choose one that "
            "timm has weights for (resnet18, resnet50, ...), or give a file."
        )
    return str(config.hf_hub_id)


def _from_hub(source: str, repo: str, revision: str | None) -> tuple[Card, WeightsFile]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    def fetch(name: str) -> Path:
        return Path(hf_hub_download(repo, name, revision=revision))

    try:
        path = None
        for name in _HUB_FILES:
            try:
                path = fetch(name)
                break
            except LocalEntryNotFoundError:
                raise  # no connection, and no copy of an earlier visit
            except EntryNotFoundError:
                continue
        if path is None:
            raise WeightsError(
                f"{repo} on the Hugging Face hub has none of {', '.join(_HUB_FILES)}. Download "
                "the file that you mean and give its path."
            )
        try:
            facts = _hub_facts(fetch("config.json"))
        except EntryNotFoundError:
            facts = {}
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise WeightsError(
            f"{source!r} is no file here, and {repo} could not be had from the Hugging Face hub "
            f"({first_line(error)[:200]}). Check the name and the connection, or give the path of "
            "a file."
        ) from None
    file = read_weights(path)
    facts = {"origin": f"Hugging Face hub: {repo}" + (f"@{revision}" if revision else ""), **facts}
    return _card(source, file, facts), file


def _hub_facts(config: Path) -> dict[str, str]:
    """Licence and corpus from a hub's `config.json`, where it has timm's `pretrained_cfg`."""
    values = read_object(config).get("pretrained_cfg", {})
    facts = {}
    if isinstance(values, dict):
        facts["licence"] = str(values.get("license", ""))
        seen = list(dict.fromkeys(_IN.findall(str(values.get("tag", "")))))
        facts["corpus"] = " + ".join(f"ImageNet-{size}" for size in seen)
    return {key: value for key, value in facts.items() if value}


def _beside(path: Path) -> dict[str, str]:
    """What lies beside a file: an export's `manifest.json`, or torchvision's word by its name."""
    run = read_object(path.parent / "config.json").get("identity", {})
    if path.name in RUN_FILES and isinstance(run, dict) and run.get("data"):
        return {"stores": json.dumps([part.get("store", "") for part in run["data"]])}
    manifest = read_object(path.parent / "manifest.json")
    if manifest.get("file") == path.name:
        return {
            key: value if isinstance(value, str) else json.dumps(value)
            for key in ("origin", "licence", "stores", "method")
            if (value := manifest.get(key))
        }
    return _torchvision_facts(path.name) if _HASHED_NAME.fullmatch(path.name) else {}


def _torchvision_facts(name: str) -> dict[str, str]:
    from torchvision.models import get_model_weights, list_models

    for model in list_models():
        for weights in get_model_weights(model):
            if weights.url.rpartition("/")[2] == name:
                trained = "ImageNet-1k" if weights.name.startswith("IMAGENET1K") else weights.name
                return {"origin": f"torchvision: {weights}", "corpus": trained}
    return {}


def _card(source: str, file: WeightsFile, facts: Mapping[str, str]) -> Card:
    known = {**facts, **file.metadata}
    hashed = _HASHED_NAME.fullmatch(file.path.name)
    wrong = hashed is not None and not file.sha256.startswith(hashed[1])
    if wrong and "origin" in facts:
        raise WeightsError(
            f"{file.path} bears a published file's name, but its sha256 begins with "
            f"{file.sha256[:8]}: it is damaged or another file. Download it again, or rename it."
        )
    method = known.get("method", "")
    return Card(
        source=source,
        file=file.path.name,
        sha256=file.sha256,
        origin=known.get("origin", f"a hounsfield run of {method}" if method else ""),
        licence=known.get("licence", known.get("license", "")),
        corpus=known.get("corpus", ""),
        stores=_listed(known.get("stores", "")),
        method=method,
    )


def _listed(text: str) -> tuple[str, ...]:
    """A list of strings in JSON, or one string as it stands."""
    try:
        values = json.loads(text) if text else []
    except ValueError:
        values = [text]
    return tuple(str(value) for value in values) if isinstance(values, list) else (str(values),)
