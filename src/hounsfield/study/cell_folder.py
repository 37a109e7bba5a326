"""What a cell leaves in the study's folder: how it ended, its scores and its curve."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from hounsfield.errors import HounsfieldError
from hounsfield.files import disk_errors, folder_whole, read_object, write_json
from hounsfield.provenance import origin
from hounsfield.study import scores
from hounsfield.study.plan import Cell, Plan
from hounsfield.study.pretraining import Pretraining
from hounsfield.study.task import Task
from hounsfield.study.trained import Labels, Trained


@dataclass(frozen=True)
class Ended:
    """How a cell or a pre-training, named by its hash, ended.

    Attributes:
        part: The hash.
        status: done, unfinished or failed.
        reason: Why, where it is not done.
        wall_s: Seconds that it took.
        exit_code: What a failure gives.
        device: What a cell ran on; empty where it never ran.
    """

    part: str
    status: str
    reason: str
    wall_s: float
    exit_code: int = 0
    device: str = ""


def read_facts(folder: Path, cell: Cell) -> dict[str, Any]:
    """What is told of the cell in the study's `folder`; empty where it has not ended."""
    return read_object(_place(folder, cell) / "cell.json")


def has_scores(folder: Path, cell: Cell) -> bool:
    """Whether the cell did not fail, and its scores are there from head to foot."""
    if read_facts(folder, cell).get("status") not in ("done", "unfinished"):
        return False
    try:
        pl.read_parquet_schema(_place(folder, cell) / "scores.parquet")
    except (OSError, pl.exceptions.PolarsError):
        return False
    return True


def give_up(
    part: Pretraining | Cell, plan: Plan, folder: Path, *, reason: str, exit_code: int
) -> Ended:
    """A part that failed without a worker to tell it; of a cell, the folder is written.

    Raises:
        DiskError: The folder cannot be written.
    """
    ended = Ended(part.hash, "failed", reason, 0.0, exit_code)
    if isinstance(part, Cell):
        write(part, plan, folder, ended, None, {})
    return ended


def write(
    cell: Cell,
    plan: Plan,
    folder: Path,
    ended: Ended,
    trained: Trained | None,
    tables: Mapping[str, pl.DataFrame],
) -> None:
    """Write the cell's folder, whole, in the place of one that failed before.

    Raises:
        DiskError: It cannot be written.
    """
    place = _place(folder, cell)
    if place.exists():
        shutil.rmtree(place)
    with folder_whole(place) as whole, disk_errors(place):
        for name, rows in tables.items():
            rows.write_parquet(whole / f"{name}.parquet")
        write_json(whole / "cell.json", _facts(cell, plan, ended, trained))


def tables_of(task: Task, labels: Labels, trained: Trained) -> dict[str, pl.DataFrame]:
    """The tables `scores` and, where there was a training, `curve`.

    Raises:
        HounsfieldError: A score is not finite.
    """
    places = labels.val[: len(trained.val)]  # somebody else's scores may be of test alone
    val = scores.table(task, places, trained.val, split="val")
    test = scores.table(task, labels.test, trained.test, split="test")
    both = pl.concat([val, test])
    bad = both.filter(~pl.all_horizontal(pl.col("^logit_.*$").is_finite()))
    if len(bad):
        raise HounsfieldError(f"{len(bad)} of {len(both)} scores are not finite numbers.")
    curve = pl.DataFrame(trained.curve, infer_schema_length=None)
    return {"scores": both, "curve": curve} if trained.curve else {"scores": both}


def _place(folder: Path, cell: Cell) -> Path:
    return folder / "cells" / cell.hash


def _facts(cell: Cell, plan: Plan, ended: Ended, trained: Trained | None) -> dict[str, Any]:
    task = plan.tasks[cell.task]
    labels = task.images["label"].to_numpy()[task.rows(cell.rung.train)]
    return {
        "hash": cell.hash,
        "arm": cell.arm,
        "task": cell.task,
        "protocol": cell.protocol,
        "fraction": cell.fraction,
        "repeat": cell.repeat,
        "fold": cell.fold,
        "status": ended.status,
        "reason": ended.reason,
        "exit_code": ended.exit_code,
        "wall_s": round(ended.wall_s, 3),
        "threads": torch.get_num_threads(),  # they decide in which order sums are rounded
        "device": ended.device,
        "seed": cell.seed,
        "n_train_patients": len(cell.rung.train),
        "n_train_images": len(labels),
        "n_train_images_by_class": np.bincount(labels, minlength=len(task.classes)).tolist(),
        "n_val_patients": len(cell.rung.val),
        "pretrain_hash": cell.pretraining,
        **(trained.facts if trained else {}),
        "settings": cell.settings,
        **origin(),
    }
