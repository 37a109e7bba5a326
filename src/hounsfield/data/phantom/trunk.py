"""Trunks from pelvis to shoulders, with organs that stand higher or lower than the levels."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from hounsfield.data.phantom.body import Ellipsoid, Triple, draw_warp
from hounsfield.data.phantom.scan import Scan, draw_scanner

TRUNK_SLICES, TRUNK_STEP_MM = 12, 45.0
LEVELS = ("pelvis", "abdomen", "lower chest", "upper chest")
BORDERS_MM = (135.0, 270.0, 405.0)  # between the levels, from the lowest slice

# What makes the task hard.
ROLL_RAD = 0.3  # standard deviation of how a trunk is turned on the table
PRONE_PATIENTS = 0.2  # share of patients whose trunk is scanned face down
ORGAN_SHIFT_MM = 28.0  # standard deviation of organs against the borders of the levels

Part = Callable[[float, float, float, Triple, float], Ellipsoid]


def trunk(rng: Generator) -> Scan:
    """A trunk from pelvis (z = 0) to shoulders (z = 540)."""
    size, fat_mm = rng.uniform(0.85, 1.15), rng.uniform(6, 34)
    shift_mm = rng.normal(0, ORGAN_SHIFT_MM)
    contrast_hu = float(rng.choice([0.0, 60.0]))
    roll = rng.normal(0, ROLL_RAD) + (np.pi if rng.random() < PRONE_PATIENTS else 0.0)
    part = _varied(rng, size=size, shift_mm=shift_mm, roll=roll)
    parts = [
        *_walls(part, fat_mm),
        *_organs(rng, part, contrast_hu),
        *_bowel(rng, part),
        *_pelvis_and_spine(rng, part, contrast_hu),
    ]
    if rng.random() < 0.5:  # arms beside the body
        parts += [part(side * 205, 20, 300, (32, 34, 400), 45) for side in (-1, 1)]
    z_mm = rng.uniform(0, TRUNK_STEP_MM) + TRUNK_STEP_MM * np.arange(TRUNK_SLICES)
    return Scan(
        name="trunk",
        parts=tuple(parts),
        warp=draw_warp(rng, 6.0),
        scanner=draw_scanner(rng, field_mm=(360, 620), noise=2.0),
        z_mm=z_mm,
        bleed=(None,) * TRUNK_SLICES,
        region=tuple(LEVELS[int(np.searchsorted(BORDERS_MM, z))] for z in z_mm),
    )


def _varied(rng: Generator, *, size: float, shift_mm: float, roll: float) -> Part:
    """A maker of parts, each a little off its place and size, in a patient's size and pose."""
    cos, sin = np.cos(roll), np.sin(roll)

    def part(x: float, y: float, z: float, radii: Triple, hu: float) -> Ellipsoid:
        jitter = rng.normal(0, 8, size=3)
        rx, ry, rz = (radius * rng.uniform(0.85, 1.15) for radius in radii)
        return Ellipsoid(
            (
                float(cos * x - sin * y) * size + jitter[0],
                float(sin * x + cos * y) * size + jitter[1],
                z + shift_mm + jitter[2],
            ),
            (rx * size, ry * size, rz),
            float(hu),
            float(roll + rng.normal(0, 0.1)),
        )

    return part


def _walls(part: Part, fat_mm: float) -> list[Ellipsoid]:
    """The body's wall: fat, and muscle inside it."""
    walls = [
        part(0, 0, 40, (165, 105, 190), 50),
        part(0, 0, 250, (140, 98, 330), 50),
        part(0, 0, 440, (160, 105, 230), 50),
    ]
    fat = [
        replace(
            wall, radii=(wall.radii[0] + fat_mm, wall.radii[1] + fat_mm, wall.radii[2]), hu=-100.0
        )
        for wall in walls
    ]
    return [*fat, *walls]


def _organs(rng: Generator, part: Part, contrast_hu: float) -> list[Ellipsoid]:
    lung_hu = rng.uniform(-860, -740)
    return [
        part(-70, 0, 420, (54, 76, 125), lung_hu),
        part(70, 0, 420, (54, 76, 125), lung_hu),
        part(12, -20, 360, (48, 40, 52), 45 + contrast_hu),  # heart
        part(0, 0, 180, (95, 62, 110), -100),  # fat in the belly
        part(-62, -10, 265, (72, 66, 75), 60 + contrast_hu * 0.8),  # liver
        part(78, 18, 265, (30, 38, 45), 50 + contrast_hu),  # spleen
        part(40, -35, 250, (32, 28, 40), float(rng.choice([-900.0, 20.0]))),  # stomach
        part(-55, 42, 185, (26, 24, 50), 32 + contrast_hu * 1.8),  # kidneys
        part(55, 42, 190, (26, 24, 50), 32 + contrast_hu * 1.8),
    ]


def _bowel(rng: Generator, part: Part) -> list[Ellipsoid]:
    return [
        part(
            float(rng.uniform(-80, 80)),
            float(rng.uniform(-55, 15)),
            float(rng.uniform(30, 220)),
            (18, 16, 40),
            float(rng.choice([-850.0, -20.0, 25.0, 40.0])),
        )
        for _ in range(10)
    ]


def _pelvis_and_spine(rng: Generator, part: Part, contrast_hu: float) -> list[Ellipsoid]:
    return [
        part(0, -15, 20, (38, 34, 40), 8),  # bladder
        part(-95, 25, 40, (16, 46, 75), 450),  # iliac bones
        part(95, 25, 40, (16, 46, 75), 450),
        part(0, 20, 330, (12, 12, 330), 45 + contrast_hu * 1.5),  # aorta
        part(0, 66, 270, (21, 18, 420), float(rng.uniform(300, 600))),  # spine
        part(0, 84, 270, (8, 7, 420), 30),  # spinal canal
    ]
