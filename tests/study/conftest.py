"""A store with a lesion that can be seen, small enough for cells of a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hounsfield.config import parse
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.study.config import StudyConfig

SIZE = 32
SLICES = 6


def make_store(
    path: Path, *, patients: int = 20, seed: int = 0, name: str = "p", z_mm: bool = False
) -> Store:
    """Slices of a grey body; label `lesion` is a brighter disc, `kind` the patient's own class.

    Even patients carry lesions on half of their slices, odd ones on none. The split column gives
    four of the first ten patients to test.
    """
    chance = np.random.default_rng(seed)
    images = chance.normal(40, 10, size=(patients * SLICES, SIZE, SIZE))
    y, x = np.mgrid[:SIZE, :SIZE]
    rows: list[dict[str, Any]] = []
    for patient in range(patients):
        for z in range(SLICES):
            lesion = patient % 2 == 0 and z < SLICES // 2
            if lesion:
                centre = chance.integers(10, 22, size=2)
                disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 25
                images[len(rows)][disc] += 120
            rows.append(
                {
                    "patient": f"{name}{patient:02d}",
                    "series": f"{name}{patient:02d}s",
                    "z": z,
                    **({"z_mm": 5.0 * z} if z_mm else {}),
                    "split": "test" if patient % 5 in (3, 4) and patient < 10 else "train",
                    "lesion": int(lesion),
                    "kind": "sick" if patient % 2 == 0 else "well",
                    "share": z / SLICES,
                }
            )
    return write_store(path, images.astype(np.int16), pl.DataFrame(rows))


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "ct").path


@pytest.fixture(scope="session")
def ordered(tmp_path_factory) -> Path:
    """The same store, with every slice's place in its volume known."""
    return make_store(tmp_path_factory.mktemp("stores") / "ordered", z_mm=True).path


@pytest.fixture(scope="session")
def study(store) -> Callable[..., StudyConfig]:
    """A maker of small studies over the store; keywords replace settings."""

    def make(**changes: Any) -> StudyConfig:
        values = {
            "name": "test",
            "stores": {"ct": str(store)},
            "tasks": {"lesion": {"store": "ct", "label": "lesion"}},
            "arms": ["scratch"],
            "backbone": "resnet10_tiny",
            "image_size": SIZE,
            "fractions": [1.0, 0.5],
            "repeats": 2,
            "budget": {"steps": 20, "batch": 8, "lr": 0.01},
            **changes,
        }
        return parse(StudyConfig, values, where="test")

    return make
