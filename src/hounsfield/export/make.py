"""`export`: weights, manifest, probe and model card in one folder, proven before it is there."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hounsfield.augment.recipe import MEAN, STD
from hounsfield.classify.kept import FILE as CLASSIFIER
from hounsfield.classify.kept import Facts, load
from hounsfield.encoder import Encoder, load_encoder
from hounsfield.errors import ConfigError, WeightsError, one_of
from hounsfield.export.card import model_card
from hounsfield.export.formats import FORMATS, Format
from hounsfield.export.network import Network
from hounsfield.files import read_object, sha256_of, write_json, write_text
from hounsfield.lock import new_folder
from hounsfield.models.weights_written import write_weights
from hounsfield.provenance import origin
from hounsfield.seeding import seed_of

PROBE = "probe.safetensors"
PROBE_IMAGES = 3


def export(run: str | Path, out: Path, *, kind: str) -> Path:
    """Write a run's backbone or classifier into the new folder `out`, and return `out`.

    The weights are read back by the plain library before the folder gets its name: what it answers
    to the probe must be what we answer, or nothing is written.

    Args:
        run: A folder of `pretrain` or `finetune`, or the file in it.
        out: A folder that does not exist yet.
        kind: One of `FORMATS`.

    Raises:
        ConfigError: There is no such format, or a package for it is missing.
        OutputError: `out` exists.
        WeightsError: The run cannot be read, or the format cannot hold its network.
    """
    if kind not in FORMATS:
        raise ConfigError(one_of("format", kind, FORMATS))
    chosen = FORMATS[kind]
    with new_folder(out) as folder:
        encoder, network, classifier = _read(run)
        chosen.write(network, encoder, folder)
        tensors = probe(network, encoder, channels=chosen.channels(encoder.backbone.channels))
        difference = _difference(network, chosen, folder, tensors)
        write_weights(folder / PROBE, tensors)
        manifest = {
            **origin(),
            "format": kind,
            "file": chosen.file,
            "sha256": sha256_of(folder / chosen.file),
            **_input(encoder, channels=chosen.channels(encoder.backbone.channels)),
            **_past(run, encoder),
            "classifier": classifier.model_dump(mode="json") if classifier else None,
            "probe": {
                "file": PROBE,
                "tolerance": chosen.tolerance,
                "greatest_difference": difference,
            },
            "licence": "",
            "licence_of_the_data": "",
            "contact": "",
        }
        write_json(folder / "manifest.json", manifest)
        write_text(folder / "README.md", model_card(manifest))
    return out


def probe(network: Network, encoder: Encoder, *, channels: int) -> dict[str, Tensor]:
    """Images that anybody can feed, and what must come out: `images`, `features`, `logits`.

    The images are noise over the whole range of normalised pixels, the same in every channel.
    """
    chance = torch.Generator().manual_seed(seed_of(0, "probe"))
    size = encoder.image_size
    grey = (torch.rand(PROBE_IMAGES, 1, size, size, generator=chance) - MEAN) / STD
    with torch.inference_mode():
        answers = network(grey.expand(-1, encoder.backbone.channels, -1, -1))
    named = dict(zip(("features", "logits"), answers, strict=False))
    return {"images": grey.repeat(1, channels, 1, 1), **named}


def _read(run: str | Path) -> tuple[Encoder, Network, Facts | None]:
    path = Path(run)
    if path.name == CLASSIFIER or (path / CLASSIFIER).is_file():
        kept = load(path)
        return kept.encoder, Network(kept.encoder, kept.head), kept.facts
    encoder = load_encoder(run)
    return encoder, Network(encoder, None), None


def _difference(
    network: Network, chosen: Format, folder: Path, tensors: dict[str, Tensor]
) -> float:
    """The greatest difference between our answers and the plain library's, at several batch sizes.

    Raises:
        WeightsError: It is beyond the format's tolerance, or the network is dead.
    """
    answer = chosen.read(network, folder)
    expected = tensors["logits" if network.head else "features"]
    if bool((expected == expected[:1]).all()):
        raise WeightsError(
            "the network answers every probe image alike, so nothing can be proven by them: its "
            "features have collapsed. Export another run."
        )
    differences = [
        answer(tensors["images"][:images].contiguous()) - expected[:images]
        for images in range(1, PROBE_IMAGES + 1)
    ]
    greatest = float(torch.cat(differences).abs().max())  # NaN where there is one
    allowed = chosen.tolerance * max(1.0, float(expected.abs().max()))
    if not greatest <= allowed:
        raise WeightsError(
            f"read back by the plain library, the weights answer the probe with a difference of "
            f"{greatest:.2g}; {allowed:.2g} is allowed. Nothing was written; please report this."
        )
    return greatest


def _input(encoder: Encoder, *, channels: int) -> dict[str, Any]:
    return {
        "backbone": encoder.backbone.name,
        "embed_dim": encoder.backbone.embed_dim,
        "channels": channels,
        "image_size": encoder.image_size,
        "window_hu": list(encoder.window_hu),
        "mean": MEAN,
        "std": STD,
    }


def _past(run: str | Path, encoder: Encoder) -> dict[str, Any]:
    """How the weights came to be: from the run's own files where they lie beside the weights."""
    folder = Path(run) if Path(run).is_dir() else Path(run).parent
    config, ended = read_object(folder / "config.json"), read_object(folder / "run.json")
    settings = {**config.get("config", {})}
    start = str(settings.get("init", ""))
    if start and Path(start).exists():
        settings["init"] = Path(start).name  # no folder of this machine
    wanted = ("settings", "batch_size", "budget", "init", "recipe", "seed", "precision")
    measured = ("steps", "final_loss", "wall_s", "images_per_s")
    return {
        "origin": encoder.card.origin,
        "method": encoder.card.method,
        "stores": list(encoder.card.stores),
        "corpus": [
            {key: part[key] for key in ("store", "slices", "patients") if key in part}
            for part in config.get("identity", {}).get("data", [])
        ],
        "training": {key: settings[key] for key in wanted if key in settings},
        "metrics": {key: ended[key] for key in measured if key in ended},
        "weights_sha256": encoder.card.sha256,
    }
