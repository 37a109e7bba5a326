"""A volume: the slices of one series, sorted, in one unit. Arrays are `(z, y, x)` everywhere."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hounsfield.units import AIR_HU

NO_MATTER_HU = -1500  # nothing is lighter than air; what scanners write outside their circle is
MAX_VOXELS = 2**30  # of one volume: 2 GiB, four thousand slices of 512 x 512

Units = Literal["hu", "display"]
UNKNOWN = float("nan")  # a spacing or a position that the source does not tell


@dataclass(frozen=True)
class Facts:
    """What the headers say of a series and that names nobody; an empty string where they do not."""

    vendor: str = ""
    kernel: str = ""
    contrast: str = ""
    sex: str = ""
    age: str = ""


@dataclass(frozen=True)
class Volume:
    """The slices of one series, axial, sorted from feet to head where the position is known.

    Attributes:
        voxels: int16 `(z, y, x)`: HU, or display values spread over [0, DISPLAY_MAX].
            Rows run from anterior to posterior, columns from the patient's right to left.
        units: `"hu"` or `"display"`.
        spacing_mm: `(z, y, x)`; NaN where it is not known.
        z_mm: `(z,)` position of every slice along the patient's axis; NaN where it is not known.
        patient, study, series: Identities as the source has them; ingest turns them into keys.
            An empty patient is one that the source does not tell.
        files: The source of every slice, relative to what was given to the reader.
        sources: SHA-256 of the bytes that every slice came from, and of its place in them.
        numbers: The source's own number of every slice; None where it has none.
        facts: What the headers say and that names nobody.
        notes: What a user should know: gaps, duplicates, gantry tilt.
        split: The source's own split, where it has one.
        labels: The source's own labels of the whole volume.
    """

    voxels: NDArray[np.int16]
    units: Units
    spacing_mm: tuple[float, float, float]
    z_mm: NDArray[np.float64]
    patient: str
    study: str
    series: str
    files: tuple[str, ...]
    sources: tuple[str, ...]
    numbers: tuple[int | None, ...]
    facts: Facts = field(default_factory=Facts)
    notes: tuple[str, ...] = ()
    split: str | None = None
    labels: Mapping[str, int | float | str] = field(default_factory=dict)


def source_of(digest: bytes, place: int) -> str:
    """The source of a slice: of the SHA-256 of its file's bytes, and of its place in the file."""
    return hashlib.sha256(digest + place.to_bytes(4)).hexdigest()


def hu(
    stored: NDArray[Any],
    *,
    slope: float,
    intercept: float,
    padding: tuple[int, int] | None = None,
) -> NDArray[np.int16]:
    """HU of stored values: `stored * slope + intercept`, rounded, within int16.

    What lies within `padding` (stored values, both ends included), is lighter than
    `NO_MATTER_HU`, or is no number becomes air.
    """
    whole = slope == 1 and intercept == int(intercept) and np.issubdtype(stored.dtype, np.integer)
    whole = whole and abs(intercept) <= 32767
    low, high = (int(stored.min()), int(stored.max())) if whole else (0, 0)
    if whole and min(low, low + intercept) >= -32768 and max(high, high + intercept) <= 32767:
        result = stored.astype(np.int16)  # nearly every CT: no wider type is needed on the way
        result += np.int16(intercept)
    else:
        scaled = stored.astype(np.float64) * slope + intercept
        values = np.nan_to_num(np.rint(scaled), nan=AIR_HU, posinf=32767, neginf=AIR_HU)
        result = np.clip(values, -32768, 32767).astype(np.int16)
    if result.min(initial=0) < NO_MATTER_HU:
        result[result < NO_MATTER_HU] = AIR_HU
    if padding is not None:
        result[(stored >= padding[0]) & (stored <= padding[1])] = AIR_HU
    return result
