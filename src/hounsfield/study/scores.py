"""Scores of a cell: a row for each unit that is judged, and the score by which a cell chooses."""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp
from sklearn.metrics import roc_auc_score

from hounsfield.study.task import Task

Score = tuple[float, float]  # what is maximised, and what decides between equals


def table(
    task: Task, places: NDArray[np.int64], logits: NDArray[np.float32], *, split: str
) -> pl.DataFrame:
    """The rows of `scores.parquet` for images at `places` of the task.

    One row a unit of the task: split, slice (the first of the unit), patient, label,
    logit_0 ... logit_{K-1}.
    """
    names = [f"logit_{label}" for label in range(len(task.classes))]
    rows = task.images[places.tolist()].select(
        pl.lit(split).alias("split"), "slice", "patient", "label", "unit"
    )
    rows = rows.with_columns(
        pl.Series(name, logits[:, k].astype(np.float32)) for k, name in enumerate(names)
    )
    if task.config.level == "slice":
        return rows.drop("unit")
    how = task.config.pool
    if how == "mean_probability":
        logs = log_softmax(logits, axis=1).astype(np.float32)
        rows = rows.with_columns(pl.Series(name, logs[:, k]) for k, name in enumerate(names))
    odds = pl.col(names[1]) - pl.col(names[0])
    pools = {
        "mean_logit": lambda column: column.mean(),
        "max_odds": lambda column: column.get(odds.arg_max()),
        "mean_probability": lambda column: column.exp().mean().log(),
    }
    return (
        rows.group_by("unit", maintain_order=True)
        .agg(
            pl.col("split", "slice", "patient", "label").first(),
            *(pools[how](pl.col(name)).cast(pl.Float32) for name in names),
        )
        .drop("unit")
    )


def choice(scores: pl.DataFrame, *, classes: int, enough: bool) -> Score | None:
    """What a cell maximises on its validation rows.

    The AUC (macro one-vs-rest) where there are enough patients of every class, and the
    log-likelihood between equals; the log-likelihood alone, which is less coarse, where there are
    fewer patients; nothing where a class is missing.
    """
    labels = scores["label"].to_numpy()
    if len(np.unique(labels)) < classes:
        return None
    logits = scores.select(f"logit_{k}" for k in range(classes)).to_numpy().astype(np.float64)
    likelihood = float(log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())
    return (macro_auc(logits, labels), likelihood) if enough else (likelihood, 0.0)


def macro_auc(logits: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """AUC of logits `(images, classes)`, the macro mean of one against the rest for several."""
    classes = logits.shape[1]
    if classes == 2:
        return float(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    rest = [logits[:, k] - logsumexp(np.delete(logits, k, axis=1), axis=1) for k in range(classes)]
    return float(np.mean([roc_auc_score(labels == k, rest[k]) for k in range(classes)]))
