"""Tensors out of a checkpoint that somebody else wrote; nothing in it is ever run."""

import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from hounsfield.errors import WeightsError, first_line
from hounsfield.files import sha256_of

# What checkpoints carry beside their tensors: hyper-parameters, paths, callbacks' states, numbers.
# An object of these classes becomes an empty shell: no code of theirs is imported or called.
SHELLS: tuple[str, ...] = (
    "argparse.Namespace",
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    ),
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
    "typing.Any",
    *(
        f"{package}.callbacks.{name}"
        for package in ("pytorch_lightning", "lightning.pytorch")
        for name in (
            "early_stopping.EarlyStopping",
            "lr_monitor.LearningRateMonitor",
            "model_checkpoint.ModelCheckpoint",
        )
    ),
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "Boolean", "Bytes", "Enum", "Float", "Integer", "Path", "String")
    ),
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
)

# Mappings that other libraries derive from dict: they become plain ordered ones.
MAPPINGS: tuple[str, ...] = (
    "collections.defaultdict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)


@dataclass(frozen=True)
class WeightsFile:
    """What a checkpoint file holds.

    Attributes:
        path: The file.
        kind: `"safetensors"` or `"torch"`.
        sha256: Of the file's bytes.
        tensors: Every tensor by its full name: the keys of nested tables joined by dots.
        metadata: The header's notes of a safetensors file; empty for others.
    """

    path: Path
    kind: str
    sha256: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_weights(path: Path) -> WeightsFile:
    """The tensors of a safetensors file or of one that `torch.save` wrote, on the CPU.

    Raises:
        WeightsError: The file is missing, damaged, of another kind, or asks for code to be run.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
        kind = _kind(path, start)
        sha256 = sha256_of(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from None
    if kind == "safetensors":
        tensors, metadata = _read_safetensors(path)
        return WeightsFile(path, kind, sha256, tensors, metadata)
    tensors = dict(_named_tensors(_load_torch(path), ""))
    if not tensors:
        raise WeightsError(
            f"{path} was read, and holds no tensor. Give the file that holds the weights."
        )
    return WeightsFile(path, kind, sha256, tensors)


def _kind(path: Path, start: bytes) -> str:
    """Tell the format by the first bytes; names lie."""
    if len(start) > 8 and start[8:9] == b"{":
        return "safetensors"
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":  # a zip archive, or an older pickle
        return "torch"
    what = "is empty" if not start else "is neither a safetensors file nor one of torch.save"
    if start.startswith(b"version https://git-lfs"):
        what = "is a Git LFS pointer: run `git lfs pull` where it came from"
    elif re.match(rb"\s*<(!doctype|html)", start, re.IGNORECASE):
        what = "is a web page: the download asked for a login or a confirmation"
    elif start.startswith(b"\x89HDF"):
        what = "is an HDF5 file (Keras?)"
    raise WeightsError(f"{path} {what}. Give a .safetensors, .pth, .pt, .ckpt or .bin file.")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # A header may name tensors that a copy cut short no longer holds: reading tells.
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is a damaged safetensors file ({error}). Copy or download it again."
        ) from None


def _load_torch(path: Path) -> Any:
    _refuse_compressed(path)
    stand_ins: list[Any] = [
        *(_stand_in(name, _Shell) for name in SHELLS),
        *(_stand_in(name, _PlainMapping) for name in MAPPINGS),
    ]
    with safe_globals(stand_ins), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickle protocols: what cannot be read raises
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a hostile file may break the reader anywhere
            raise WeightsError(_why_not(path, error)) from None


def _refuse_compressed(path: Path) -> None:
    """Refuse an archive that unpacks to more than it is: `torch.save` never compresses.

    Raises:
        WeightsError: It does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile:
        return  # of the older format, or damaged: the reader will say
    if unpacked > path.stat().st_size:
        raise WeightsError(
            f"{path} is a compressed archive of {unpacked / 2**20:.0f} MiB, which torch.save does "
            "not write. Unpack it first, or give another file."
        )


def _why_not(path: Path, error: Exception) -> str:
    """One message for a file of torch.save that was not read."""
    foreign: list[str] = []
    try:
        foreign = sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:
        found = re.search(r"GLOBAL (\S+)", str(error))
        foreign = [found[1]] if found else []
    if foreign:
        return (
            f"{path} is refused: loading it would run code of {', '.join(foreign[:20])}. Only "
            "tensors are read. Where you trust its source, load it there and save "
            "`model.state_dict()` with safetensors."
        )
    if "TorchScript" in str(error):
        return (
            f"{path} is a TorchScript program, not a table of tensors. Save its `state_dict()` "
            "with safetensors."
        )
    return (
        f"{path} cannot be read as a checkpoint ({first_line(error)[:200]}). It is damaged "
        "or cut short: copy or download it again; or it was saved in a way that needs code to run: "
        "save its `state_dict()` with safetensors."
    )


class _Shell:
    """Takes any arguments and any state, and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "_Shell":
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        del state


class _PlainMapping:
    """Called or made anew, gives an empty ordered mapping that the reader may fill."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


def _stand_in(full_name: str, kind: type) -> type:
    module, _, name = full_name.rpartition(".")
    return type(name, (kind,), {"__module__": module})


def _named_tensors(value: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor inside nested tables and lists, without recursion: files may nest deeply."""
    pending: list[tuple[str, Any]] = [(prefix, value)]
    seen: set[int] = set()  # a table may contain itself
    while pending:
        name, item = pending.pop()
        if isinstance(item, Tensor):
            yield name, item.detach()
            continue
        if not isinstance(item, dict | list | tuple) or id(item) in seen:
            continue
        seen.add(id(item))
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        pending.extend(
            (f"{name}.{key}" if name else str(key), inner) for key, inner in reversed(list(pairs))
        )
