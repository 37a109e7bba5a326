"""What a worker does: read headers, or turn a unit of files into a part of the store on the disk.

A part is two files in the staging folder, named by a hash of all that decides it: `KEY.i16` has
the slices, `KEY.json`, written last, their checksum, the rows of the index and the refusals.
Neither is flushed to the disk: a part that is not what was written is made again.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hounsfield import __version__
from hounsfield.data.archive import Entry, Kind
from hounsfield.data.keys import Keys
from hounsfield.data.refusal import Announce, Refusal, Refuse, read_each
from hounsfield.data.resample import Shape, to_shape
from hounsfield.data.series import Header
from hounsfield.data.volume import Volume
from hounsfield.files import disk_errors, sha256_of

Read = Callable[[Sequence[Any], Refuse, Announce], Iterator[Volume]]


def reader(kind: Kind) -> Read:
    """What reads files of that kind: of DICOM files it takes the headers, of others the entries.

    It is `read` of the module of that name, imported only where there is such a file.
    """
    return import_module(f"hounsfield.data.readers.{kind}").read


@dataclass(frozen=True)
class Unit:
    """Files that are converted together: a series, the pictures of a folder, or one file."""

    kind: Kind
    items: tuple[Entry, ...] | tuple[Header, ...]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The files, each once, in the order of the items."""
        entries = (one.entry if isinstance(one, Header) else one for one in self.items)
        return tuple(dict.fromkeys(entries))

    def without(self, file: str) -> "Unit":
        """This unit without the file of that name."""
        kept: list[Any] = [
            one
            for one in self.items
            if (one.entry if isinstance(one, Header) else one).name != file
        ]
        return Unit(self.kind, tuple(kept))


@dataclass(frozen=True)
class Job:
    """What decides a part beside its files.

    Attributes:
        shape: Of the stored slices.
        keys: For identities.
        staging: Where parts go.
        pattern: A regular expression that finds the patient in a file's name.
        class_folders: Whether the first folder of a name is a class, and no patient.
    """

    shape: Shape
    keys: Keys
    staging: Path
    pattern: str | None = None
    class_folders: bool = False

    def part_of(self, unit: Unit) -> Path:
        """The part's path without its endings."""
        items = [
            f"{one.entry.stamp}#{one.frame}|{one.series}" if isinstance(one, Header) else one.stamp
            for one in unit.items
        ]
        decides = [
            __version__, unit.kind, repr(self.shape), self.keys("part", "key"), str(self.pattern),
            str(self.class_folders), *items,
        ]  # fmt: skip
        return self.staging / hashlib.sha256("\n".join(decides).encode()).hexdigest()[:32]


def read_headers(
    entries: tuple[Entry, ...], announce: Announce
) -> tuple[list[Header], list[Refusal]]:
    """The headers of DICOM files, and the files that are not for us or not readable."""
    from hounsfield.data.readers import dicom_headers  # and pydicom, which the parent does without

    quiet()
    refusals: list[Refusal] = []
    slices = read_each(dicom_headers.read_headers, entries, refusals.append, announce)
    return [header for _, of_file in slices for header in of_file], refusals


@dataclass(frozen=True)
class Content:
    """What a unit gives.

    Attributes:
        images: int16 `(slices, size, size)`.
        rows: Of the index, one a slice; null for what is not known.
        refusals: Files that stay out.
    """

    images: NDArray[np.int16]
    rows: tuple[dict[str, Any], ...]
    refusals: tuple[Refusal, ...]


def read_unit(job: Job, unit: Unit, announce: Announce) -> Content:
    """The slices of `unit` in the stored shape, and what is known of each."""
    refusals: list[Refusal] = []
    images = [np.zeros((0, job.shape.size, job.shape.size), np.int16)]
    rows: list[dict[str, Any]] = []
    for stored, of_volume, _ in _volumes(job, unit, refusals.append, announce):
        images.append(stored)
        rows += of_volume
    return Content(np.concatenate(images), tuple(rows), tuple(refusals))


def convert(job: Job, unit: Unit, announce: Announce) -> Path:
    """The path of the part of `unit`, which is there, a volume in memory at a time."""
    part = job.part_of(unit)
    images = part.with_suffix(".i16")
    refusals: list[Refusal] = []
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    digest = hashlib.sha256()
    images.unlink(missing_ok=True)
    for stored, of_volume, said in _volumes(job, unit, refusals.append, announce):
        content = np.ascontiguousarray(stored).data
        digest.update(content)
        with disk_errors(images), images.open("ab") as file:
            file.write(content)  # tofile hides what the disk said
        rows += of_volume
        notes += said
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    refused = [asdict(one) for one in refusals]
    told = {
        "slices": len(rows), "sha256": digest.hexdigest(), "rows": columns, "refused": refused,
        "notes": notes,
    }  # fmt: skip
    with disk_errors(part):
        part.with_suffix(".json").write_text(json.dumps(told))
    return part


def is_whole(part: Path) -> bool:
    """Whether a worker has finished that part, and the disk has kept all of it."""
    try:
        told = json.loads(part.with_suffix(".json").read_bytes())
        if not told["slices"]:
            return True
        return bool(sha256_of(part.with_suffix(".i16")) == told["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def images_of(part: Path, shape: Shape) -> NDArray[np.int16]:
    """The slices of a part that has some, mapped from the disk: `(slices, size, size)`."""
    return np.memmap(part.with_suffix(".i16"), np.int16, "r").reshape(-1, shape.size, shape.size)


def _volumes(
    job: Job, unit: Unit, refuse: Refuse, announce: Announce
) -> Iterator[tuple[NDArray[np.int16], list[dict[str, Any]], list[str]]]:
    """Of every volume the slices in the stored shape, their rows, and the notes."""
    quiet()
    for volume in reader(unit.kind)(unit.items, refuse, announce):
        stored, spacing_mm = to_shape(volume, job.shape)
        series = job.keys("series", volume.series)
        notes = [f"series {series}: {note}" for note in volume.notes]
        yield stored, list(rows_of(job, volume, spacing_mm)), notes


def quiet() -> None:
    """What libraries say of odd files is said by refusals and notes instead."""
    for library in ("pydicom", "pylibjpeg", "nibabel", "nibabel.global", "PIL"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def rows_of(job: Job, volume: Volume, spacing_mm: tuple[float, float]) -> Iterator[dict[str, Any]]:
    """The rows of the index for a volume; null for what is not known.

    `patient` is null where only a guess by the file's place is left, which is `guess`.
    """
    facts = asdict(volume.facts)
    study, series = job.keys("study", volume.study), job.keys("series", volume.series)
    for place, file in enumerate(volume.files):
        patient = _by_pattern(job.pattern, file) or volume.patient
        yield {
            "file": file,
            "patient": job.keys("patient", patient) or None,
            "guess": job.keys("patient", _guess(job, volume, file)),
            "study": study,
            "series": series,
            "number": volume.numbers[place],
            "z_mm": _known(volume.z_mm[place]),
            "spacing_z_mm": _known(volume.spacing_mm[0]),
            "spacing_y_mm": _known(spacing_mm[0]),
            "spacing_x_mm": _known(spacing_mm[1]),
            "units": volume.units,
            "source": volume.sources[place],
            **facts,
            "split": volume.split,
            **{f"label {name}": value for name, value in volume.labels.items()},
        }


def _by_pattern(pattern: str | None, file: str) -> str:
    match = re.search(pattern, file) if pattern else None
    if match is None:
        return ""
    return match.groupdict().get("patient") or match.group(1) or ""


def _guess(job: Job, volume: Volume, file: str) -> str:
    """Who the patient may be by where the file lies: its folder, or itself where it has none."""
    *folders, name = file.split("/")
    if job.class_folders:
        folders = folders[1:]
    if folders and volume.units == "display":
        return "/".join(folders)
    return volume.study or name.split(".")[0]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
