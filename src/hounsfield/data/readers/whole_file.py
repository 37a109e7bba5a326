"""What NIfTI, NRRD and MetaImage share: a file is a volume in HU whose patient is unknown."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from hounsfield.data.archive import Entry
from hounsfield.data.volume import Volume, source_of
from hounsfield.errors import NotForUsError

OBLIQUE_DEG = 35.0  # as far as a gantry tilts; what lies between is no axial scan
LIGHTEST_HU = -100  # a scan holds air or fat; a mask and a scaled picture do not


def scan(
    entry: Entry,
    data: bytes,
    voxels: NDArray[np.int16],
    *,
    spacing_mm: tuple[float, float, float],
    z_mm: NDArray[np.float64],
) -> Volume:
    """The volume of the file `entry`, whose content is `data`.

    Raises:
        NotForUsError: Its values are no HU.
    """
    if voxels.min() > LIGHTEST_HU:
        raise NotForUsError(
            f"no HU: its values are {voxels.min()} to {voxels.max()}, without air or fat"
        )
    digest, places = hashlib.sha256(data).digest(), range(len(z_mm))
    return Volume(
        voxels=voxels,
        units="hu",
        spacing_mm=spacing_mm,
        z_mm=z_mm,
        patient="",
        study="",
        series=entry.name,
        files=(entry.name,) * len(z_mm),
        sources=tuple(source_of(digest, place) for place in places),
        numbers=tuple(place + 1 for place in places),
    )


def check_axial(across: NDArray[np.float64]) -> None:
    """Refuse a volume whose slices' normal, a unit vector, is far from the patient's axis.

    Raises:
        NotForUsError: It is.
    """
    if across[2] < np.cos(np.radians(OBLIQUE_DEG)):
        raise NotForUsError("oblique: none of its axes runs from feet to head")
