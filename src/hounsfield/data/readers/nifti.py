"""NIfTI to volumes: any order of axes becomes axial, scaled by the header's own slope."""

import gzip
import io
import warnings
import zlib
from collections.abc import Iterator, Sequence

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from hounsfield.data.archive import Entry
from hounsfield.data.readers.whole_file import check_axial, scan
from hounsfield.data.refusal import Announce, Refuse, read_each
from hounsfield.data.volume import MAX_VOXELS, Volume, hu
from hounsfield.errors import NotForUsError, ReadError

_HEADER_BYTES = 4096  # the headers of NIfTI 1 and 2 are shorter


def read(entries: Sequence[Entry], refuse: Refuse, announce: Announce) -> Iterator[Volume]:
    """A volume a file. The patient is unknown: the format has no place for one."""
    return (volume for _, volume in read_each(_volume, entries, refuse, announce))


def _volume(entry: Entry) -> Volume:
    data = entry.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            voxels, affine = _voxels(_unpacked(data))
    except ReadError:
        raise
    except Exception as error:  # a broken header can fail anywhere in nibabel
        raise ReadError(f"no readable NIfTI ({type(error).__name__})") from None
    x_mm, y_mm, step_mm = map(float, np.linalg.norm(affine[:3, :3], axis=0))
    return scan(
        entry,
        data,
        np.ascontiguousarray(voxels.transpose(2, 1, 0)),
        spacing_mm=(step_mm, y_mm, x_mm),
        z_mm=affine[2, 3] + step_mm * np.arange(voxels.shape[2]),
    )


def _voxels(data: bytes) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """HU `(x, y, z)` with x to the left, y to the back, z to the head, and their affine."""
    kind = nibabel.Nifti2Image if data[4:8] == b"n+2\x00" else nibabel.Nifti1Image
    picture = kind.from_bytes(data)
    shape = picture.shape
    if len(shape) == 4 and shape[3] == 1:
        picture, shape = picture.slicer[..., 0], shape[:3]
    if len(shape) != 3 or min(shape) < 1:
        raise NotForUsError(f"an array of shape {tuple(map(int, shape))}; a scan has 3 dimensions")
    if not np.issubdtype(picture.get_data_dtype(), np.number):
        raise NotForUsError("colour, not HU")
    affine = picture.affine
    if not np.all(np.isfinite(affine)) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ReadError("its affine maps no volume")
    upright = ornt_transform(io_orientation(affine), axcodes2ornt(("L", "P", "S")))
    stored = apply_orientation(picture.dataobj.get_unscaled(), upright)
    affine = affine @ nibabel.orientations.inv_ornt_aff(upright, shape)
    check_axial(affine[:3, 2] / np.linalg.norm(affine[:3, 2]))
    slope, intercept = picture.dataobj.slope, picture.dataobj.inter
    if not np.isfinite(slope) or slope == 0 or not np.isfinite(intercept):
        raise ReadError(f"a slope of {slope} and an intercept of {intercept}")
    voxels = np.empty(stored.shape, dtype=np.int16)
    for z in range(stored.shape[2]):  # slice by slice: a volume in float64 may not fit
        voxels[:, :, z] = hu(stored[:, :, z], slope=float(slope), intercept=float(intercept))
    return voxels, affine


def _unpacked(data: bytes) -> bytes:
    """The bytes of the image, which may be packed; never more than its own header announces.

    Raises:
        ReadError: It is larger than any CT, or shorter than it announces.
    """
    packed = data.startswith(b"\x1f\x8b")
    try:
        head = zlib.decompressobj(31).decompress(data, _HEADER_BYTES) if packed else data
        needed = _announced(head[:_HEADER_BYTES])
        if packed:
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(needed)
    except (zlib.error, OSError, EOFError):
        raise ReadError("its packed data are damaged or cut short") from None
    if len(data) < needed:
        raise ReadError(f"its voxels are cut short: {len(data)} of {needed} bytes")
    return data


def _announced(head: bytes) -> int:
    """How many bytes a NIfTI file with this header has."""
    kind = nibabel.Nifti2Header if head[4:8] == b"n+2\x00" else nibabel.Nifti1Header
    header = kind.from_fileobj(io.BytesIO(head), check=False)
    shape = [int(extent) for extent in header.get_data_shape()]
    voxels = 1
    for extent in shape:
        if extent < 0:
            raise ReadError(f"an array of shape {tuple(shape)}")
        voxels *= extent
    if voxels > MAX_VOXELS:
        raise ReadError(f"an array of shape {tuple(shape)}: larger than any CT")
    return int(header.get_data_offset()) + voxels * header.get_data_dtype().itemsize
