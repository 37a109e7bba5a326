"""Somebody else's scores as an arm: judged on the same patients, ladders and intervals as ours."""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hounsfield.errors import InputError, LabelError, one_of
from hounsfield.study.task import Task
from hounsfield.study.trained import Labels, Trained

PLACES = ("task", "fraction", "repeat", "fold")  # columns that may say which cells a row is for


def read(path: Path) -> pl.DataFrame:
    """The table of a predictions file.

    Columns: `slice` (the row of the store); `score` (higher is the second class) or one
    `logit_K` for each class K from 0; and, where a row is not for all cells, any of `task`,
    `fraction`, `repeat`, `fold`.

    Raises:
        LabelError: The file cannot be read, or a column is missing, unknown or not numeric.
    """
    try:
        table = pl.read_csv(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LabelError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    logits = [name for name in table.columns if name.startswith("logit_")]
    allowed = ["slice", "score", *PLACES, *logits]
    for name in table.columns:
        if name not in allowed:
            raise LabelError(f"{path}: {one_of('column', name, [*allowed, 'logit_0'])}")
    if "slice" not in table.columns or ("score" in table.columns) == bool(logits):
        raise LabelError(
            f"{path} has the columns {', '.join(table.columns)}; it needs slice, and either score "
            "or logit_0, logit_1, ..."
        )
    if any(not table.schema[name].is_numeric() for name in table.columns if name != "task"):
        raise LabelError(f"{path}: every column but task must hold numbers.")
    return table


def scores(
    table: pl.DataFrame, task: Task, labels: Labels, place: dict[str, str | float]
) -> Trained:
    """The scores of one cell.

    Args:
        table: As `read` gives it.
        task: The cell's task.
        labels: Of the cell.
        place: The cell's `task`, `fraction`, `repeat` and `fold`.

    Raises:
        InputError: A test image has no score, or two; or the classes are not the task's.
    """
    classes = len(task.classes)
    for name, value in place.items():
        if name in table.columns:
            column = pl.col(name)
            same = column == value if isinstance(value, str) else (column - value).abs() < 1e-9
            table = table.filter(same)
    if "score" in table.columns:
        if classes != 2:
            raise InputError(f"a single score cannot tell {classes} classes apart; give logit_K.")
        table = table.with_columns(logit_0=-pl.col("score") / 2, logit_1=pl.col("score") / 2)
    names = [f"logit_{k}" for k in range(classes)]
    if sorted(name for name in table.columns if name.startswith("logit_")) != sorted(names):
        raise InputError(f"the task has {classes} classes: give {names[0]} to {names[-1]}.")
    if table["slice"].is_duplicated().any():
        raise InputError("a slice has two scores for the same cell.")
    test = _looked_up(table, task, labels.test, names)
    missing = int(np.isnan(test).any(axis=1).sum())
    if missing:
        raise InputError(f"{missing} of {len(test)} test images have no score.")
    val = _looked_up(table, task, labels.val, names)
    whole = task.external is None and not np.isnan(val).any()  # or its rows are of another store
    return Trained(val=val if whole else val[:0], test=test, curve=[])


def _looked_up(
    table: pl.DataFrame, task: Task, places: NDArray[np.int64], names: list[str]
) -> NDArray[np.float32]:
    """Scores `(places, classes)`, NaN where there is none."""
    wanted = task.images[places.tolist()].select(pl.col("slice").cast(pl.Int64))
    known = table.select(pl.col("slice").cast(pl.Int64), *names)
    found = wanted.join(known, on="slice", how="left", maintain_order="left")
    return found.select(pl.col(names).cast(pl.Float32).fill_null(float("nan"))).to_numpy()
