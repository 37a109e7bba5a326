"""MedMNIST archives (`.npz`) to volumes of display values, with their own split and labels.

The archives hold `{train,val,test}_images` `(n, height, width)` in 8 bits and `..._labels`
`(n, labels)` (Yang et al., MedMNIST v2, arXiv 2110.14795). They do not say which pictures share a
patient, so every picture is a patient of its own here: intervals come out narrower than they are.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hounsfield.data.archive import Entry
from hounsfield.data.refusal import Announce, Refuse, read_each
from hounsfield.data.split import PARTS
from hounsfield.data.volume import MAX_VOXELS, UNKNOWN, Volume
from hounsfield.errors import ReadError
from hounsfield.units import DISPLAY_MAX

NOTE = "MedMNIST does not say which pictures share a patient: intervals are too narrow"


def read(entries: Sequence[Entry], refuse: Refuse, announce: Announce) -> Iterator[Volume]:
    """A volume of one slice a picture, with its split and its labels."""
    for entry, arrays in read_each(_arrays, entries, refuse, announce):
        for split in PARTS:
            if f"{split}_images" in arrays:
                yield from _pictures(entry, split, arrays)


def _pictures(entry: Entry, split: str, arrays: dict[str, NDArray[np.uint8]]) -> Iterator[Volume]:
    images = arrays[f"{split}_images"]
    labels = arrays.get(f"{split}_labels")
    for place, image in enumerate(images):
        name = f"{entry.name}/{split}/{place}"
        values = np.rint(image.astype(np.float32) * (DISPLAY_MAX / 255)).astype(np.int16)
        first = split == PARTS[0] and place == 0
        yield Volume(
            voxels=values[None],
            units="display",
            spacing_mm=(UNKNOWN, UNKNOWN, UNKNOWN),
            z_mm=np.array([UNKNOWN]),
            patient=name,
            study="",
            series=name,
            files=(entry.name,),
            sources=(hashlib.sha256(f"{name}\n".encode() + image.tobytes()).hexdigest(),),
            numbers=(place,),
            notes=(NOTE,) if first else (),
            split=split,
            labels={} if labels is None else _labels(labels[place]),
        )


def _labels(row: NDArray[np.uint8]) -> dict[str, int | float | str]:
    values = np.ravel(row)
    if len(values) == 1:
        return {"label": int(values[0])}
    return {f"label_{number}": int(value) for number, value in enumerate(values)}


def _arrays(entry: Entry) -> dict[str, NDArray[np.uint8]]:
    """The arrays of the archive, checked against each other and never unpickled.

    Raises:
        ReadError: They are not what MedMNIST archives hold.
    """
    arrays: dict[str, NDArray[np.uint8]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(entry.read())) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in {f"{split}_{what}" for split in PARTS for what in ("images", "labels")}:
                    with archive.open(member) as file:
                        arrays[name] = _array(file.read(min(member.file_size, MAX_VOXELS)), name)
    except ReadError:
        raise
    except Exception as error:  # zip and npy headers can be broken in many ways
        raise ReadError(f"no readable MedMNIST archive ({type(error).__name__})") from None
    if not any(name.endswith("_images") for name in arrays):
        raise ReadError("no MedMNIST archive: it has no train_images, val_images or test_images")
    for name in [name for name in arrays if name.endswith("_labels")]:
        images = arrays.get(name.replace("_labels", "_images"))
        if images is None or len(images) != len(arrays[name]):
            raise ReadError(f"{name} does not fit its images")
    return arrays


def _array(content: bytes, name: str) -> NDArray[np.uint8]:
    file = io.BytesIO(content)
    version = npy.read_magic(file)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, kind = reader(file)
    if kind.kind not in "ui" or (name.endswith("_images") and kind != np.uint8):
        raise ReadError(f"{name} is of type {kind}; whole numbers are read, 8-bit for images")
    if name.endswith("_images") and len(shape) == 4 and shape[-1] != 3:
        raise ReadError(f"{name} has shape {shape}: MedMNIST's volumes are no axial CT slices")
    if name.endswith("_images") and len(shape) not in (3, 4):
        raise ReadError(f"{name} has shape {shape}; (n, height, width) is read")
    if int(np.prod(shape, dtype=object)) * kind.itemsize > len(content):
        raise ReadError(f"{name} is cut short")
    array = npy.read_array(io.BytesIO(content), allow_pickle=False)
    return array.mean(-1).round().astype(np.uint8) if array.ndim == 4 else array
