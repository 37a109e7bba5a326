"""How alike slices look: 64-bit difference hashes, and thumbnails that confirm what hashes say."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hounsfield.data.resample import area_weights
from hounsfield.data.store import Store
from hounsfield.units import DISPLAY_MAX

HASH_SIDE = 8  # a hash has HASH_SIDE x HASH_SIDE bits
BITS: Final = HASH_SIDE**2
SHOWN_HU = (-1000.0, 1000.0)
CHUNK = 512  # slices read at once
THUMBNAIL = 32  # px a side

Hashes = NDArray[np.uint64]


def difference_hashes(
    store: Store, rows: NDArray[np.int64], *, advance: Callable[[int], None] = lambda _: None
) -> Hashes:
    """The difference hash of every slice: `(rows,)`; `advance` is told how many came further.

    A slice is shown in 8 bits, averaged to 9 x 8, rounded, and bit (y, x) is set where pixel
    (y, x + 1) is brighter than pixel (y, x): what imagehash's `dhash` does with `hash_size=8`
    (https://github.com/JohannesBuchner/imagehash), apart from the resampling filter, which is
    Lanczos' there and the area average here. Rounding keeps noise in air from setting bits.
    """
    powers = np.uint64(1) << np.arange(BITS, dtype=np.uint64)
    hashes = np.empty(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        small = np.rint(_averaged(store, part, HASH_SIDE, HASH_SIDE + 1))
        bits = (small[:, :, 1:] > small[:, :, :-1]).reshape(len(part), BITS)
        hashes[start : start + CHUNK] = (bits * powers).sum(1, dtype=np.uint64)
        advance(len(part))
    return hashes


def distances(hashes: Hashes, to: np.uint64 | Hashes) -> NDArray[np.uint8]:
    """In how many bits two hashes differ (Hamming distance), elementwise with broadcasting."""
    return np.bitwise_count(hashes ^ to)


def thumbnails(store: Store, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Small pictures with mean 0 and length 1, so that a product is a correlation: `(rows, n)`.

    A slice without any contrast is all zeros, and like no other.
    """
    parts = [np.zeros((0, THUMBNAIL**2), dtype=np.float32)]
    for start in range(0, len(rows), CHUNK):
        small = _averaged(store, rows[start : start + CHUNK], THUMBNAIL, THUMBNAIL)
        flat = small.reshape(len(small), -1)
        flat -= flat.mean(1, keepdims=True)
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        parts.append(np.where(length > 1e-3, flat / np.maximum(length, 1e-3), 0))
    return np.concatenate(parts)


def _averaged(
    store: Store, rows: NDArray[np.int64], height: int, width: int
) -> NDArray[np.float32]:
    """Area averages of slices shown in 8 bits: `(rows, height, width)` in grey levels."""
    images = store.read(rows).astype(np.float32)
    hu = store.is_hu[rows][:, None, None]
    low = np.where(hu, SHOWN_HU[0], 0).astype(np.float32)
    high = np.where(hu, SHOWN_HU[1], DISPLAY_MAX).astype(np.float32)
    grey = np.rint(((images - low) / (high - low)).clip(0, 1) * 255)
    size = store.size
    down = area_weights(size, height, middle=size / 2, step=size / height)
    across = area_weights(size, width, middle=size / 2, step=size / width)
    return down @ grey @ across.T
