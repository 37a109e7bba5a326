"""New scans as a classifier's slices: read as ingest reads, a series at a time, nothing stored."""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hounsfield.data.convert import Content, Job, Unit, read_unit
from hounsfield.data.ingest import blame, look, units_of
from hounsfield.data.keys import Keys
from hounsfield.data.refusal import Refusal
from hounsfield.data.resample import Shape
from hounsfield.data.workers import Death, Staff
from hounsfield.progress import bar


@dataclass(frozen=True)
class Scan:
    """The slices of one series of one patient, from feet to head where positions are known.

    Attributes:
        patient, series: As ingest names them.
        units: `"hu"` or `"display"`.
        spacing_mm: Of the pixels of `images`, `(y, x)`; None where it is not known.
        files: Of every slice.
        z_mm: Of every slice; None where it is not known.
        images: int16 `(slices, size, size)`.
    """

    patient: str
    series: str
    units: str
    spacing_mm: tuple[float, float] | None
    files: tuple[str, ...]
    z_mm: tuple[float | None, ...]
    images: NDArray[np.int16]


def scans(
    sources: Sequence[Path],
    shape: Shape,
    keys: Keys,
    *,
    workers: int = 1,
    patient_pattern: str | None = None,
) -> Generator[Scan | Refusal, None, None]:
    """Every scan below `sources`, and every file that cannot be read, as they come.

    Only the series that are being read are in memory, one a worker. The workers end when all is
    read, or when the generator is closed.

    Raises:
        InputError: A source does not exist.
        WorkerError: The reading processes die again and again.
    """
    entries, refusals = look(sources)
    job = Job(shape, keys, Path(), patient_pattern)
    with Staff(workers) as staff:
        units, not_read = units_of(entries, staff)
        yield from (*refusals, *not_read)
        yield from _read(units, job, staff)


def _read(units: Sequence[Unit], job: Job, staff: Staff) -> Iterator[Scan | Refusal]:
    tasks = deque(units)
    with bar("series", total=len(units)) as progress:
        for unit, outcome in staff.each(partial(read_unit, job), tasks):
            if not isinstance(outcome, Death):
                yield from outcome.refusals
                yield from _scans(outcome)
                progress.advance()
                continue
            yield from blame(outcome)
            rest = unit.without(outcome.file)
            if rest.items:
                tasks.append(rest)


def _scans(content: Content) -> Iterator[Scan]:
    """The content by patient and series; pictures of one folder may be of several."""
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(content.rows):
        names = ("units", "spacing_y_mm", "spacing_x_mm")
        key = (row["patient"] or row["guess"], row["series"], *(row[name] for name in names))
        places.setdefault(key, []).append(place)
    for (patient, series, units, spacing_y, spacing_x), members in places.items():
        rows = [content.rows[place] for place in members]
        yield Scan(
            patient=patient,
            series=series,
            units=units,
            spacing_mm=None if spacing_y is None or spacing_x is None else (spacing_y, spacing_x),
            files=tuple(row["file"] for row in rows),
            z_mm=tuple(row["z_mm"] for row in rows),
            images=content.images[members],
        )
