"""Bodies out of ellipsoids in HU, and a plane through one as an image without noise."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hounsfield.units import AIR_HU

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Ellipsoid:
    """A body part: centre and radii in mm `(x, y, z)`, turned by `turn` radians around z."""

    centre: Triple
    radii: Triple
    hu: float
    turn: float = 0.0

    def area_mm2(self, z: float) -> float:
        """The area of its section at height `z` in mm."""
        share = 1 - ((z - self.centre[2]) / self.radii[2]) ** 2
        return float(np.pi * self.radii[0] * self.radii[1] * max(share, 0.0))


@dataclass(frozen=True)
class Warp:
    """A smooth shift of the plane, so that no ellipsoid stays one: `shift_mm` at wavelength."""

    shift_mm: tuple[float, float]
    wavelength_mm: tuple[float, float]
    phase: tuple[float, float]


def draw_warp(rng: Generator, shift_mm: float) -> Warp:
    """A warp whose shifts have a standard deviation of `shift_mm`."""
    first, second = rng.normal(0, shift_mm, size=2)
    one, two = rng.uniform(120, 260, size=2)
    here, there = rng.uniform(0, 2 * np.pi, size=2)
    return Warp(
        (float(first), float(second)), (float(one), float(two)), (float(here), float(there))
    )


def plane(
    parts: tuple[Ellipsoid, ...],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: float,
    *,
    pixel_mm: float,
) -> NDArray[np.float32]:
    """The parts in HU, painted over each other at height `z`, edges blended over one pixel.

    Args:
        parts: In the order in which they are painted.
        x: In mm, `(rows, columns)`, as is `y`.
        y: In mm.
        z: In mm.
        pixel_mm: The width of a blended edge.
    """
    image = np.full(x.shape, AIR_HU, dtype=np.float32)
    for part in parts:
        dz = np.float32((z - part.centre[2]) / part.radii[2])
        if abs(dz) >= 1:
            continue
        rx, ry = part.radii[0], part.radii[1]
        cos, sin = np.float32(np.cos(part.turn)), np.float32(np.sin(part.turn))
        dx, dy = x - np.float32(part.centre[0]), y - np.float32(part.centre[1])
        u, v = (cos * dx + sin * dy) / np.float32(rx), (cos * dy - sin * dx) / np.float32(ry)
        reach = np.sqrt(u * u + v * v + dz * dz)  # 1 on the surface
        slope = np.sqrt((u / np.float32(rx)) ** 2 + (v / np.float32(ry)) ** 2) / (reach + 1e-6)
        inside = np.clip(0.5 - (reach - 1) / (slope * pixel_mm + 1e-6), 0, 1)
        image += inside * (np.float32(part.hu) - image)
    return image


def warped(
    x: NDArray[np.float32], y: NDArray[np.float32], warp: Warp
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where in the body the points `x`, `y` of the plane lie, all in mm."""
    shift_x = warp.shift_mm[0] * np.sin(y * (2 * np.pi / warp.wavelength_mm[0]) + warp.phase[0])
    shift_y = warp.shift_mm[1] * np.sin(x * (2 * np.pi / warp.wavelength_mm[1]) + warp.phase[1])
    return x + shift_x.astype(np.float32), y + shift_y.astype(np.float32)
