"""How fast do cells run? Cells an hour, and what a cell costs besides its steps.

    python benchmarks/study.py [--backbone resnet10_tiny] [--size 64] [--steps 200] [--cells 4]

Prints `name value` lines. `overhead_s`: a cell of one step, all that surrounds it included: a fresh
backbone, one step, scores of validation and test, files. `first_cell_s`: the same for the first
cell of a process, which also reads the images. `cells_per_hour`: cells of `--steps` steps, one
after the other. `reads_per_cell`: how often the store is asked for images, after the first cell.
Each time has a twin with `_cpu`, in this process's own time: trust it where the machine is shared.
"""

import argparse
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl

from hounsfield.config import parse
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.seeding import stream
from hounsfield.study.config import StudyConfig
from hounsfield.study.plan import Plan, plan
from hounsfield.study.worker import Worker

PATIENTS, SLICES = 60, 20


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet10_tiny")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--cells", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store", size=options.size)
        short = make_plan(store, options, steps=1)
        worker = Worker(short, Path(folder) / "short")
        show("first_cell_s", seconds(worker, short, [0]), 1)
        with mock.patch.object(Store, "read", autospec=True, side_effect=Store.read) as read:
            spent = seconds(worker, short, range(1, options.cells + 1))
        show("overhead_s", spent, options.cells)
        print(f"reads_per_cell {read.call_count / options.cells:.1f}")
        long = make_plan(store, options, steps=options.steps)
        worker = Worker(long, Path(folder) / "long")
        worker.images("task")
        wall, own = seconds(worker, long, range(options.cells))
        print(f"cells_per_hour {3600 * options.cells / wall:.0f}")
        print(f"cells_per_hour_cpu {3600 * options.cells / own:.0f}")


def show(name: str, spent: tuple[float, float], cells: int) -> None:
    """Print wall time and own time a cell."""
    for end, time_s in zip(("", "_cpu"), spent, strict=True):
        print(f"{name}{end} {time_s / cells:.2f}")


def seconds(worker: Worker, planned: Plan, numbers: "range | list[int]") -> tuple[float, float]:
    """Wall time and own time of these cells of the plan.

    Raises:
        RuntimeError: A cell failed, so its time means nothing.
    """
    began, own = time.perf_counter(), time.process_time()
    for number in numbers:
        ended = worker.run(planned.cells[number])
        if ended.status == "failed":
            raise RuntimeError(ended.reason)
    return time.perf_counter() - began, time.process_time() - own


def make_plan(store: Path, options: argparse.Namespace, *, steps: int) -> Plan:
    """A study of scratch cells at one fraction."""
    values = {
        "name": "benchmark",
        "stores": {"ct": str(store)},
        "tasks": {"task": {"store": "ct", "label": "label"}},
        "arms": ["scratch"],
        "backbone": options.backbone,
        "image_size": options.size,
        "fractions": [1.0],
        "repeats": options.cells + 1,
        "budget": {"steps": steps, "batch": 32, "lr": 1e-3},
    }
    return plan(parse(StudyConfig, values, where="benchmark"))


def make_store(path: Path, *, size: int) -> Path:
    """Noise with labels: what is timed does not depend on what is seen."""
    chance = stream(0, "benchmark")
    count = PATIENTS * SLICES
    patients = np.repeat([f"p{number:02d}" for number in range(PATIENTS)], SLICES)
    parts = np.repeat(["train"] * (PATIENTS // 2) + ["val"] * (PATIENTS // 4), SLICES)
    index = pl.DataFrame(
        {
            "patient": patients,
            "series": patients,
            "z": np.tile(np.arange(SLICES), PATIENTS),
            "split": np.append(parts, ["test"] * (count - len(parts))),
            "label": chance.integers(0, 2, size=count),
        }
    )
    images = chance.normal(0, 300, size=(count, size, size)).astype(np.int16)
    return write_store(path, images, index).path


if __name__ == "__main__":
    main()
