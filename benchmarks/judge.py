"""How long does judging a large study take, from stored scores to intervals and verdicts?

    python benchmarks/judge.py

Writes a study of 900 cells (3 tasks, of which one has 11 classes; 5 arms, 6 fractions, 10 repeats)
with 200 test patients and about 8,000 test images a task, and judges it. Prints `name value` lines.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from hounsfield.judge.results import judge
from hounsfield.seeding import stream

TASKS = {"bleed": 2, "covid": 2, "organ": 11}
ARMS = ("scratch", "imagenet", "moco_v2", "byol", "spark")
FRACTIONS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02)
REPEATS = 10
PATIENTS, SLICES = 200, 40


def main() -> None:
    """Write, judge, print."""
    with tempfile.TemporaryDirectory() as folder:
        cells = write(Path(folder))
        start, spent = time.perf_counter(), time.process_time()
        results = judge(Path(folder))
        seconds, spent = time.perf_counter() - start, time.process_time() - spent
    print(f"judge_cells {cells}")
    print(f"judge_numbers {len(results.table)}")
    print(f"judge_seconds {seconds:.1f}")
    print(f"judge_processor_seconds {spent:.1f}")


def write(folder: Path) -> int:
    """A study of which every cell is done; returns the number of cells."""
    facts = {
        "arms": list(ARMS),
        "fractions": list(FRACTIONS),
        "repeats": REPEATS,
        "folds": 0,
        "primary": {
            "arm": "spark",
            "baseline": "scratch",
            "task": "bleed",
            "protocol": "fair",
            "metric": "auc",
            "level": "slice",
            "fraction": FRACTIONS[-1],
            "family": [[arm, "scratch"] for arm in ARMS[1:]],
            "hypotheses": [["spark", "moco_v2"]],
        },
    }
    (folder / "study.json").write_text(json.dumps(facts))
    count = 0
    for task, classes in TASKS.items():
        test, signal = truth(task, classes)
        for place, table in cells(task, test, signal):
            path = folder / "cells" / f"{task}-{count}"
            path.mkdir(parents=True)
            (path / "cell.json").write_text(json.dumps(place))
            table.write_parquet(path / "scores.parquet")
            count += 1
    return count


def truth(task: str, classes: int) -> tuple[pl.DataFrame, np.ndarray]:
    """The test images of a task, and their logits without noise (images, classes)."""
    rng = stream(0, "truth", task)
    owner = np.repeat(np.arange(PATIENTS), SLICES)
    labels = rng.integers(0, classes, len(owner))
    test = pl.DataFrame(
        {
            "split": ["test"] * len(owner),
            "slice": np.arange(len(owner)),
            "patient": [f"p{number:04}" for number in owner],
            "label": labels.astype(np.int32),
        }
    )
    return test, np.eye(classes)[labels] + 0.5 * rng.normal(size=(PATIENTS, classes))[owner]


def cells(
    task: str, test: pl.DataFrame, signal: np.ndarray
) -> Iterator[tuple[dict[str, object], pl.DataFrame]]:
    """What each cell of a task writes."""
    for arm, fraction, repeat in product(ARMS, FRACTIONS, range(REPEATS)):
        rng = stream(0, "cell", task, arm, str(fraction), repeat)
        logits = (signal + rng.normal(size=signal.shape)).astype(np.float32)
        columns = {f"logit_{k}": logits[:, k] for k in range(logits.shape[1])}
        place = {
            "arm": arm,
            "task": task,
            "protocol": "fair",
            "fraction": fraction,
            "repeat": repeat,
            "fold": 0,
            "status": "done",
        }
        yield place, test.with_columns(**columns)


if __name__ == "__main__":
    main()
