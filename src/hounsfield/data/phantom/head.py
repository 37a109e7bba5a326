"""Heads, bleeds in some of them, and bright things that are no bleed in all."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hounsfield.data.phantom.body import Ellipsoid, Triple, draw_warp
from hounsfield.data.phantom.scan import Scan, draw_scanner
from hounsfield.units import AIR_HU

HEAD_SLICES, HEAD_STEP_MM = 14, 5.0

# What makes the task hard. Chosen so that few labels are clearly worse than many, and many are
# clearly short of perfect.
BLEED_PATIENTS = 0.6  # share of patients with a bleed near or in the scanned part of the head
BLEED_HU = (65.0, 80.0)
BLEED_RADIUS_MM = (11.0, 18.0)  # in the plane
BLEED_HALF_HEIGHT_MM = (14.0, 26.0)
BLEED_SEEN_MM2 = 60.0  # a slice is called positive from this area of blood on
DECOYS = 1.5  # bright things that are no bleed, in the mean a head


@dataclass(frozen=True)
class _Skull:
    """A head's outer bone: radii in mm, how thick it is, what it holds, how it is turned."""

    radii: Triple
    bone_mm: float
    brain_hu: float
    tilt: float

    @property
    def brain(self) -> Triple:
        """The radii in mm of what it holds."""
        x, y, z = self.radii
        return (x - self.bone_mm, y - self.bone_mm, z - self.bone_mm)

    def at(self, x: float, y: float, z: float) -> Triple:
        """Where a point of an upright head lies."""
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return (float(x * cos - y * sin), float(x * sin + y * cos), z)


def head(rng: Generator) -> Scan:
    """A head from skull base to crown, z = 0 at the brain's middle."""
    skull = _Skull(
        radii=(rng.uniform(66, 78), rng.uniform(84, 98), rng.uniform(88, 100)),
        bone_mm=rng.uniform(5, 9),
        brain_hu=rng.uniform(28, 36),
        tilt=rng.normal(0, 0.12),
    )
    parts = _anatomy(rng, skull)
    parts += [_decoy(rng, skull) for _ in range(rng.poisson(DECOYS))]
    z_mm = rng.uniform(-32, -22) + HEAD_STEP_MM * np.arange(HEAD_SLICES)
    bleed = [0] * HEAD_SLICES
    if rng.random() < BLEED_PATIENTS:
        lesion = _bleed(rng, skull, z_mm)
        bleed = [int(lesion.area_mm2(z) >= BLEED_SEEN_MM2) for z in z_mm]
        parts.append(lesion)
    return Scan(
        name="head",
        parts=tuple(parts),
        warp=draw_warp(rng, 3.0),
        scanner=draw_scanner(rng, field_mm=(215, 265), noise=1.0),
        z_mm=z_mm,
        bleed=tuple(bleed),
        region=("head",) * HEAD_SLICES,
    )


def _anatomy(rng: Generator, skull: _Skull) -> list[Ellipsoid]:
    """What every head has."""

    def part(x: float, y: float, z: float, radii: Triple, hu: float) -> Ellipsoid:
        return Ellipsoid(skull.at(x, y, z), radii, float(hu), float(skull.tilt))

    (rx, ry, rz), brain, brain_hu = skull.radii, skull.brain, skull.brain_hu
    width, drop = rng.uniform(6, 14), rng.uniform(-4, 4)
    return [
        part(0, 0, 0, (rx + 6, ry + 6, rz + 6), rng.uniform(-80, 10)),  # scalp
        part(0, 0, 0, (rx, ry, rz), rng.uniform(700, 1400)),
        part(0, 0, 0, brain, brain_hu),
        part(0, 0, 5, (brain[0] * 0.8, brain[1] * 0.82, brain[2] * 0.8), brain_hu - 6),
        part(-width, -18 + drop, 12, (width * 0.8, 26, 22), rng.uniform(4, 12)),  # ventricles
        part(width, -18 + drop, 12, (width * 0.8, 26, 22), rng.uniform(4, 12)),
        part(0, 0, 30, (1.6, brain[1], 60), rng.uniform(40, 52)),  # falx
        part(0, brain[1] - 5, 5, (7, 6, 60), rng.uniform(45, 60)),  # venous blood
        part(0, 25, -52, (44, 12, 16), rng.uniform(300, 900)),  # skull base
        part(0, -brain[1] * 0.8, -48, (16, 14, 16), AIR_HU),  # sinus
    ]


def _decoy(rng: Generator, skull: _Skull) -> Ellipsoid:
    """Bright and no bleed: a calcification (small, dense) or an old scar's rim (thin, long)."""
    x, y = _in_brain(rng, skull, 0.6)
    z = rng.uniform(-40, 50)
    turn = float(rng.uniform(0, np.pi))
    centre = skull.at(x, y, z)
    if rng.random() < 0.5:
        radius = rng.uniform(2, 4)
        return Ellipsoid(centre, (radius, radius, 8), float(rng.uniform(80, 220)), turn)
    return Ellipsoid(centre, (2.0, rng.uniform(8, 20), 14), float(rng.uniform(50, 70)), turn)


def _bleed(rng: Generator, skull: _Skull, z_mm: NDArray[np.floating[Any]]) -> Ellipsoid:
    """A bleed whose middle is uniform over the scan and beyond its ends by its own half height.

    So every level of the scan is as likely to lie inside it as any other.
    """
    half = rng.uniform(*BLEED_HALF_HEIGHT_MM)
    z = rng.uniform(z_mm[0] - half, z_mm[-1] + half)
    blood_hu = float(rng.uniform(*BLEED_HU))
    x, y = _in_brain(rng, skull, 0.5)
    radii = (float(rng.uniform(*BLEED_RADIUS_MM)), float(rng.uniform(*BLEED_RADIUS_MM)), half)
    return Ellipsoid(skull.at(x, y, z), radii, blood_hu, float(rng.uniform(0, np.pi)))


def _in_brain(rng: Generator, skull: _Skull, share: float) -> tuple[float, float]:
    """A point of the plane, uniform over the inner `share` of the brain's radii."""
    rx, ry, _ = skull.brain
    radius, angle = np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    return (
        float(share * rx * radius * np.cos(angle)),
        float(share * ry * radius * np.sin(angle)),
    )
