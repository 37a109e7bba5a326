"""A series of a phantom: what is scanned, by which scanner, and what its slices look like."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from hounsfield.data.phantom.body import Ellipsoid, Warp, plane, warped

MATRIX = 128  # pixels a side, of which a scanner's `pixel_mm` is one
THICKNESS_MM = 5.0
INTERCEPT = -1024  # HU of a stored 0

NOISE_HU = (3.0, 6.0)  # standard deviation after the kernel
OFFSET_MM = 12.0  # standard deviation of a body's place on the table


@dataclass(frozen=True)
class Scanner:
    """How a body becomes an image."""

    pixel_mm: float
    noise_hu: float
    blur_mm: float
    kernel: str
    offset_mm: tuple[float, float]


@dataclass(frozen=True)
class Scan:
    """One series: what is scanned, how, where, and what its labels are."""

    name: str
    parts: tuple[Ellipsoid, ...]
    warp: Warp
    scanner: Scanner
    z_mm: NDArray[np.floating[Any]]
    bleed: tuple[int | None, ...]
    region: tuple[str, ...]


def draw_scanner(rng: Generator, *, field_mm: tuple[float, float], noise: float) -> Scanner:
    """A scanner with a field of view between `field_mm`, `noise` times as noisy as a head's."""
    sharp = rng.random() < 0.4
    return Scanner(
        pixel_mm=float(rng.uniform(*field_mm)) / MATRIX,
        noise_hu=float(rng.uniform(*NOISE_HU)) * noise * (1.5 if sharp else 1.0),
        blur_mm=0.9 if sharp else 1.8,
        kernel="SHARP" if sharp else "SOFT",
        offset_mm=(float(rng.normal(0, OFFSET_MM)), float(rng.normal(0, OFFSET_MM))),
    )


def render(scan: Scan, number: int, rng: Generator, *, matrix: int) -> NDArray[np.int16]:
    """Slice `number` of `scan` in HU, `(matrix, matrix)`: rows to the back, columns to the left."""
    pixel = scan.scanner.pixel_mm * MATRIX / matrix
    axis = (np.arange(matrix, dtype=np.float32) - (matrix - 1) / 2) * np.float32(pixel)
    x, y = np.meshgrid(axis - scan.scanner.offset_mm[0], axis - scan.scanner.offset_mm[1])
    x, y = warped(x, y, scan.warp)
    image = np.zeros((matrix, matrix), dtype=np.float32)
    halves = (-THICKNESS_MM / 4, THICKNESS_MM / 4)  # two planes stand for the slice's thickness
    for half in halves:
        z = float(scan.z_mm[number]) + half
        image += plane(scan.parts, x, y, z, pixel_mm=pixel) / len(halves)
    sigma = scan.scanner.blur_mm / pixel
    grain = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), sigma)
    image = ndimage.gaussian_filter(image, sigma)
    image += grain * (scan.scanner.noise_hu / max(float(grain.std()), 1e-6))
    return np.clip(np.rint(image), INTERCEPT, INTERCEPT + 4095).astype(np.int16)
