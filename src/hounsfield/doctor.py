"""What this machine has, what it lacks, and the command that mends it.

Other packages are imported only where they are asked, for one of them may be what is missing.
"""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from hounsfield.provenance import commit, machine, origin

ENOUGH_MEMORY_GIB, ENOUGH_DISK_GIB = 4, 5  # ours: a small study with a ResNet-50
CODECS: Final = {
    "JPEG": "JPEGBaseline8Bit",
    "JPEG lossless": "JPEGLosslessSV1",
    "JPEG-LS": "JPEGLSLossless",
    "JPEG 2000": "JPEG2000Lossless",
    "RLE": "RLELossless",
}
"""Ways to store a DICOM image, and pydicom's names for them."""

DEVELOPMENT = "test"  # the extra that users do without
DRIVER = Path("/proc/driver/nvidia/version")
_GIB = 2**30
_REQUIREMENT = re.compile(r"([\w.-]+)[^;]*(?:;.*extra == ['\"]([\w-]+)['\"])?")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: Of the thing.
        found: What is there.
        mend: The command, or the advice, that mends what is missing; "" where nothing is.
        needed: Whether it is missing and the main work cannot be done without it.
    """

    name: str
    found: str
    mend: str = ""
    needed: bool = False


def examine(place: Path) -> list[Finding]:
    """Everything that is looked at, in the order in which it is told; `place` is on the disk."""
    packages = list(_packages())
    if any(one.needed for one in packages):
        return packages  # nothing else can be looked at before they are there
    return [*_software(), *_device(), *_room(place), *_codecs(), *packages]


def lines(findings: list[Finding]) -> Iterator[str]:
    """A line a finding, and below it how to mend what is missing."""
    wide = max(len(one.name) for one in findings)
    for one in findings:
        mark = "!" if one.mend else " "
        yield f"{mark} {one.name:<{wide}}  {one.found}"
        if one.mend:
            yield f"  {'':<{wide}}  -> {one.mend}"


def _software() -> Iterator[Finding]:
    import torch

    at = f" at {commit()[:12]}" if commit() else ""
    yield Finding("hounsfield", origin()["version"] + at)
    yield Finding("python", f"{machine()['python']} on {machine()['system']}")
    yield Finding("torch", f"{torch.__version__}, threads: {torch.get_num_threads()}")


def _device() -> Iterator[Finding]:
    import torch

    from hounsfield.train.device import has_bf16

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            found = f"{facts.name}, {facts.total_memory / _GIB:.0f} GiB"
            yield Finding(f"GPU {number}", found)
    elif DRIVER.exists():
        mend = "pip install --force-reinstall torch  (a build for this driver's CUDA)"
        yield Finding("GPU", "there is one, but torch cannot use it", mend)
    else:
        yield Finding("GPU", "none; everything runs on the CPU")
    yield Finding("precision", "bf16-mixed" if has_bf16() else "32-true")
    yield Finding("cores", str(machine()["cores"]))


def _room(place: Path) -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free"
    short = memory.available < ENOUGH_MEMORY_GIB * _GIB
    yield Finding("memory", found, "lower batch_size and image_size" if short else "")
    free = shutil.disk_usage(place).free / _GIB
    mend = f"free {ENOUGH_DISK_GIB} GiB, or give --out another disk"
    yield Finding("disk", f"{free:.1f} GiB free at {place}", mend if free < ENOUGH_DISK_GIB else "")
    if not os.access(place, os.W_OK):
        yield Finding("folder", f"{place} is not writable", "give --out another folder")


def _codecs() -> Iterator[Finding]:
    from pydicom import uid
    from pydicom.pixels.decoders import base

    for name, syntax in CODECS.items():
        there = base.get_decoder(getattr(uid, syntax)).is_available
        mend = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
        yield Finding(
            f"DICOM {name}",
            "read" if there else "not read",
            "" if there else mend,
            needed=not there,
        )


def _packages() -> Iterator[Finding]:
    """The requirements that are not installed, the extras' by their extra."""
    missing: dict[str, list[str]] = {}
    for requirement in requires("hounsfield") or ():
        found = _REQUIREMENT.match(requirement)
        if found is None or found[2] == DEVELOPMENT:
            continue
        if not _installed(found[1]):
            missing.setdefault(found[2] or "", []).append(found[1])
    for extra, names in missing.items():
        package = f"'hounsfield[{extra}]'" if extra else "hounsfield"
        yield Finding(
            f"extra {extra}" if extra else "packages",
            f"without {', '.join(names)}",
            f"pip install {package}",
            needed=not extra,
        )


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
