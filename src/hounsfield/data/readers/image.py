"""PNG, JPEG and TIFF to volumes of display values: what a viewer showed, never HU."""

import hashlib
import io
import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hounsfield.data.archive import Entry
from hounsfield.data.refusal import Announce, Refuse, read_each
from hounsfield.data.volume import MAX_VOXELS, UNKNOWN, Volume, source_of
from hounsfield.errors import ReadError
from hounsfield.units import DISPLAY_MAX

MAX_PIXELS = 2**26  # of one picture: 8192 x 8192


def read(entries: Sequence[Entry], refuse: Refuse, announce: Announce) -> Iterator[Volume]:
    """The pictures of one folder as volumes, one for every run of pictures of equal size.

    The order of the slices is the order of the names; numbers, positions and spacings are unknown.
    """
    pictures = (
        (entry.name, source_of(digest, number), page)
        for entry, (digest, pages) in read_each(_picture, entries, refuse, announce)
        for number, page in enumerate(pages)
    )
    for _, run in groupby(pictures, key=lambda one: one[2].shape):
        names, sources, images = zip(*run, strict=True)
        folder = entries[0].name.rpartition("/")[0]
        yield Volume(
            voxels=np.stack(images),
            units="display",
            spacing_mm=(UNKNOWN, UNKNOWN, UNKNOWN),
            z_mm=np.full(len(images), UNKNOWN),
            patient="",
            study="",
            series=folder,
            files=names,
            sources=sources,
            numbers=(None,) * len(images),
        )


def _picture(entry: Entry) -> tuple[bytes, list[NDArray[np.int16]]]:
    """The SHA-256 of a picture's bytes, and its pages."""
    data = entry.read()
    return hashlib.sha256(data).digest(), list(_pages(data))


def _pages(data: bytes) -> Iterator[NDArray[np.int16]]:
    """The pages of a picture, spread over [0, DISPLAY_MAX]: `(height, width)` each.

    Raises:
        ReadError: It cannot be decoded, is too large, or its scale is unknown.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF")) as picture:
                count = getattr(picture, "n_frames", 1)
                if picture.width * picture.height * count > min(MAX_VOXELS, MAX_PIXELS * count):
                    raise ReadError(
                        f"{count} x {picture.width} x {picture.height} pixels: too many"
                    )
                for page in range(count):
                    picture.seek(page)
                    if picture.width * picture.height > MAX_PIXELS:
                        raise ReadError(f"{picture.width} x {picture.height} pixels: too many")
                    yield _spread(ImageOps.exif_transpose(picture))
    except ReadError:
        raise
    except Exception as error:  # Pillow's decoders fail in many ways
        raise ReadError(f"cannot be decoded ({type(error).__name__})") from None


def _spread(picture: Image.Image) -> NDArray[np.int16]:
    """Grey values over [0, DISPLAY_MAX], whatever their bit depth; transparency shows black."""
    if picture.mode.startswith("I;16") or picture.mode == "I":
        values = np.asarray(picture).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise ReadError("32-bit values of unknown scale; give 8 or 16 bits")
        full = 65535.0
    elif picture.mode == "F":
        raise ReadError("floating-point values of unknown scale; give 8 or 16 bits")
    else:
        if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
            over = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over)
        values = np.asarray(picture.convert("L")).astype(np.float32)
        full = 255.0
    return np.rint(values * (DISPLAY_MAX / full)).astype(np.int16)
