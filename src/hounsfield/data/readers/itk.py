"""NRRD and MetaImage to volumes, through SimpleITK (the extra `hounsfield[itk]`)."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hounsfield.data.archive import Entry
from hounsfield.data.readers.whole_file import check_axial, scan
from hounsfield.data.refusal import Announce, Refuse, read_each
from hounsfield.data.volume import MAX_VOXELS, Volume, hu
from hounsfield.errors import NotForUsError, ReadError

_HEADER_BYTES = 2**16
_DATA_FILE = (b"elementdatafile", b"data file", b"datafile")


def read(entries: Sequence[Entry], refuse: Refuse, announce: Announce) -> Iterator[Volume]:
    """A volume a file. The patient is unknown."""
    return (volume for _, volume in read_each(_volume, entries, refuse, announce))


def _volume(entry: Entry) -> Volume:
    try:
        import SimpleITK as sitk  # noqa: N813 - as everybody calls it
    except ImportError:
        raise ReadError("NRRD and MetaImage need: pip install 'hounsfield[itk]'") from None
    data = entry.read()
    _check_self_contained(data)
    suffix = ".nrrd" if data.startswith(b"NRRD") else ".mha"
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:  # SimpleITK reads files alone
        Path(file.name).write_bytes(data)
        try:
            voxels, spacing_mm, z_mm = _voxels(sitk, file.name)
        except RuntimeError as error:
            raise ReadError(f"cannot be read ({type(error).__name__})") from None
    return scan(entry, data, voxels, spacing_mm=spacing_mm, z_mm=z_mm)


def _voxels(
    sitk: Any, path: str
) -> tuple[NDArray[np.int16], tuple[float, float, float], NDArray[np.float64]]:
    """HU `(z, y, x)`, spacing and positions; x to the left, y to the back, z to the head."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    size = reader.GetSize()
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
        raise NotForUsError(f"{reader.GetDimension()} dimensions or colour; a scan has 3")
    if int(np.prod(size, dtype=object)) > MAX_VOXELS:
        raise ReadError(f"an array of shape {size}: larger than any CT")
    image = sitk.DICOMOrient(reader.Execute(), "LPS")
    check_axial(np.array(image.GetDirection()).reshape(3, 3)[:, 2])
    x_mm, y_mm, step_mm = image.GetSpacing()
    voxels = hu(sitk.GetArrayFromImage(image), slope=1, intercept=0)
    z_mm = image.GetOrigin()[2] + step_mm * np.arange(len(voxels))
    return voxels, (step_mm, y_mm, x_mm), z_mm


def _check_self_contained(data: bytes) -> None:
    """Refuse headers whose voxels lie in another file: it could be any file of this machine.

    Raises:
        ReadError: The voxels are elsewhere.
    """
    head = data[:_HEADER_BYTES].split(b"\n\n")[0] if data.startswith(b"NRRD") else data
    for line in head[:_HEADER_BYTES].split(b"\n"):
        name, _, value = line.replace(b":", b"=").partition(b"=")
        if name.strip().lower() in _DATA_FILE and value.strip(b"= \r").upper() != b"LOCAL":
            raise ReadError(
                "its voxels lie in a file of their own; save it in one piece (.mha or .nrrd)"
            )
