"""Somebody else's scores as an arm: judged on the same patients, ladders and intervals as ours."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hounsfield.data.split import Split
from hounsfield.errors import InputError, LabelError, first_line, one_of
from hounsfield.study.task import Task
from hounsfield.study.trained import Trained

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
        names = {"task": pl.String}  # a task may be called 1
        table = pl.read_csv(path, infer_schema_length=None, schema_overrides=names)
    except FileNotFoundError:
        raise LabelError(f"there is no file of scores at {path}. Give a CSV.") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LabelError(f"{path} cannot be read: {first_line(error)}") from None
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
    text = [name for name, kind in table.schema.items() if not kind.is_numeric() and name != "task"]
    if text:
        raise LabelError(f"{path}: column {text[0]!r} holds text; all but task must hold numbers.")
    return table


def of_cell(
    table: pl.DataFrame, *, task: str, fraction: float, repeat: int, fold: int
) -> pl.DataFrame:
    """The rows of the table that are for this cell."""
    here: dict[str, str | float] = {
        "task": task, "fraction": fraction, "repeat": repeat, "fold": fold
    }  # fmt: skip
    for name, value in here.items():
        if name in table.columns:
            column = pl.col(name)
            same = column == value if isinstance(value, str) else (column - value).abs() < 1e-9
            table = table.filter(same)
    return table


def covers(table: pl.DataFrame, task: Task, split: Split, **cell: Any) -> bool:
    """Whether the table speaks of this cell; where it does, it says all that is needed.

    Raises:
        InputError: As `scores`.
    """
    rows, judged = of_cell(table, task=task.name, **cell), task.rows(split.test)
    if not rows.is_empty():
        scores(rows, task, val=judged[:0], test=judged)
    return not rows.is_empty()


def scores(
    table: pl.DataFrame, task: Task, *, val: NDArray[np.int64], test: NDArray[np.int64]
) -> Trained:
    """The scores of one cell.

    Args:
        table: The rows of the cell.
        task: The cell's task.
        val: Places in the task's images of those that choose.
        test: The same of those that judge.

    Raises:
        InputError: A test image has no finite score, or two; or the classes are not the task's.
    """
    classes = len(task.classes)
    if "score" in table.columns:
        if classes != 2:
            raise InputError(
                f"one score cannot tell the {classes} classes of {task.name} apart; give logit_K."
            )
        table = table.with_columns(logit_0=-pl.col("score") / 2, logit_1=pl.col("score") / 2)
    names = [f"logit_{k}" for k in range(classes)]
    if sorted(name for name in table.columns if name.startswith("logit_")) != sorted(names):
        raise InputError(f"{task.name} has {classes} classes: give {names[0]} to {names[-1]}.")
    if table["slice"].is_duplicated().any():
        raise InputError(
            f"a slice has two scores for the same cell of {task.name}. Give it one, or say in the "
            f"columns {', '.join(PLACES)} which cells a row is for."
        )
    judged = _looked_up(table, task, test, names)
    missing = int(np.isnan(judged).any(axis=1).sum())
    if missing:
        raise InputError(
            f"{missing} of {len(judged)} test images of {task.name} have no score. Give all, or "
            f"say in the columns {', '.join(PLACES)} which cells a row is for."
        )
    if not np.isfinite(judged).all():
        raise InputError(
            f"a test image of {task.name} has a score that is infinite, or too large for 32 bits. "
            "Give finite numbers."
        )
    chosen = _looked_up(table, task, val, names)
    whole = task.external is None and np.isfinite(chosen).all()  # or its rows are of another store
    return Trained(val=chosen if whole else chosen[:0], test=judged, curve=[])


def _looked_up(
    table: pl.DataFrame, task: Task, places: NDArray[np.int64], names: list[str]
) -> NDArray[np.float32]:
    """Scores `(places, classes)`, NaN where there is none."""
    wanted = task.images[places.tolist()].select(pl.col("slice").cast(pl.Int64))
    known = table.select(pl.col("slice").cast(pl.Int64), *names)
    found = wanted.join(known, on="slice", how="left", maintain_order="left")
    return found.select(pl.col(names).cast(pl.Float32).fill_null(float("nan"))).to_numpy()
