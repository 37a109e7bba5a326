"""Curves of one cell's test scores: ROC, precision-recall, calibration, confusion.

Plain curves without bands: they show one trained model on these test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logsumexp, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve, roc_curve

Floats = NDArray[np.float64]
Points = list[tuple[float, float]]

BINS = 10
ON_CURVE = 41  # points of a drawn curve, evenly over the axis


@dataclass(frozen=True)
class Quality:
    """How one cell did on its test images.

    Attributes:
        roc: (false positive rate, true positive rate); the mean over classes against the rest
            where there are more than two.
        precision_recall: (recall, precision); likewise.
        calibration: (mean predicted probability, observed share, images) for each bin that holds
            an image: of the second class of two, else of the predicted class.
        recalibration: What `recalibration` gives; None too where there are more than two classes.
        confusion: Images, true class by predicted class.
    """

    roc: Points
    precision_recall: Points
    calibration: list[tuple[float, float, int]]
    recalibration: tuple[float, float] | None
    confusion: NDArray[np.int64]


def quality(scores: pl.DataFrame) -> Quality | None:
    """The curves of a table of scores, or None where its test rows miss a class."""
    test = scores.filter(pl.col("split") == "test")
    labels = test["label"].to_numpy().astype(np.int64)
    logits = test.select("^logit_[0-9]+$").to_numpy().astype(np.float64)
    classes = logits.shape[1]
    if classes < 2 or not np.isfinite(logits).all():
        return None
    if set(np.unique(labels)) != set(range(classes)):
        return None
    positives = range(1, 2) if classes == 2 else range(classes)
    against_rest = [(labels == k, _log_odds(logits, k)) for k in positives]
    return Quality(
        roc=_roc(against_rest),
        precision_recall=_precision_recall(against_rest),
        calibration=_calibration(labels, softmax(logits, axis=1)),
        recalibration=recalibration(*against_rest[0]) if classes == 2 else None,
        confusion=_confusion(labels, logits.argmax(axis=1), classes),
    )


def recalibration(truth: NDArray[np.bool_], log_odds: Floats) -> tuple[float, float] | None:
    """Slope and intercept of the truth over predicted log odds; (1, 0) where they are calibrated.

    The slope is of a logistic regression with both, the intercept of one with a slope of one (Van
    Calster et al., Calibration: the Achilles heel of predictive analytics, BMC Medicine 17:230).
    None where a threshold parts the classes: no finite slope fits best then.
    """
    yes, no = log_odds[truth], log_odds[~truth]
    if yes.min() >= no.max() or yes.max() <= no.min():
        return None
    points = ((log_odds - log_odds.mean()) / log_odds.std())[:, None]  # else ill-conditioned
    both = LogisticRegression(C=np.inf, solver="newton-cholesky").fit(points, truth)
    far = float(np.abs(log_odds).max()) + np.log(truth.size)
    intercept = brentq(lambda at: expit(log_odds + at).sum() - truth.sum(), -far, far)
    return float(both.coef_[0, 0] / log_odds.std()), float(intercept)


def _log_odds(logits: Floats, k: int) -> Floats:
    return logits[:, k] - logsumexp(np.delete(logits, k, axis=1), axis=1)


def _roc(against_rest: Sequence[tuple[NDArray[np.bool_], Floats]]) -> Points:
    grid = np.linspace(0, 1, ON_CURVE)
    rates = []
    for truth, score in against_rest:
        false, true, _ = roc_curve(truth, score)
        rates.append(np.interp(grid, false, true))
    mean = np.mean(rates, axis=0)
    return [(0.0, 0.0), *zip(grid.tolist(), mean.tolist(), strict=True)]


def _precision_recall(against_rest: Sequence[tuple[NDArray[np.bool_], Floats]]) -> Points:
    """Precision at the smallest recall that is at least each grid point: no interpolation."""
    grid = np.linspace(0, 1, ON_CURVE)
    precisions = []
    for truth, score in against_rest:
        precision, recall, _ = precision_recall_curve(truth, score)
        rising = np.searchsorted(recall[::-1], grid, side="left")
        precisions.append(precision[::-1][np.minimum(rising, recall.size - 1)])
    return list(zip(grid.tolist(), np.mean(precisions, axis=0).tolist(), strict=True))


def _calibration(labels: NDArray[np.int64], chances: Floats) -> list[tuple[float, float, int]]:
    if chances.shape[1] == 2:
        said, happened = chances[:, 1], labels == 1
    else:
        said, happened = chances.max(axis=1), labels == chances.argmax(axis=1)
    bins = np.minimum((said * BINS).astype(np.int64), BINS - 1)
    return [
        (float(said[inside].mean()), float(happened[inside].mean()), int(inside.sum()))
        for inside in (bins == place for place in range(BINS))
        if inside.any()
    ]


def _confusion(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)
