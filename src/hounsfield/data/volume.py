"""A volume: the slices of one series, sorted, in one unit. Arrays are `(z, y, x)` everywhere."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hounsfield.units import AIR_HU, DISPLAY_MAX

__all__ = ["AIR_HU", "DISPLAY_MAX", "Facts", "Units", "Volume"]

Units = Literal["hu", "display"]


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
        files: The source of every slice, relative to what was given to the reader.
        facts: What the headers say and that names nobody.
        notes: What a user should know: gaps, duplicates, gantry tilt.
    """

    voxels: NDArray[np.int16]
    units: Units
    spacing_mm: tuple[float, float, float]
    z_mm: NDArray[np.float64]
    patient: str
    study: str
    series: str
    files: tuple[str, ...]
    facts: Facts = field(default_factory=Facts)
    notes: tuple[str, ...] = ()
