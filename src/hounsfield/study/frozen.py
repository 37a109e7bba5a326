"""The protocols `linear` and `knn`: what frozen features say, without any fine-tuning."""

import math
import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hounsfield.study.trained import Labels, Trained

PENALTIES = (1e-4, 1e-2, 1.0, 1e2)  # inverse strengths of the L2 penalty, wide on purpose
MOST_ITERATIONS = 2000
NEIGHBOURS = 20
TEMPERATURE = 0.07  # with NEIGHBOURS, of Wu et al. (arXiv 1805.01978, section 3.4)
NO_VOTE = 1e-6  # the vote of a class without a neighbour, so that its logit is finite


def linear(
    features: NDArray[np.float32], truth: NDArray[np.int64], labels: Labels, *, classes: int
) -> Trained:
    """A logistic regression on standardised features, classes weighted alike.

    The penalty is chosen on the cell's validation patients, or is the grid's upper middle one
    where validation lacks a class.

    Args:
        features: `(images, embed_dim)` of all of the task's images.
        truth: `(images,)`: the classes.
        labels: Of the cell.
        classes: How many there are.
    """
    scaler = StandardScaler().fit(features[labels.train])
    points = scaler.transform(features).astype(np.float64)
    grid = PENALTIES if labels.some else (PENALTIES[len(PENALTIES) // 2],)
    tried, converged = [], []
    for penalty in grid:
        model = LogisticRegression(C=penalty, class_weight="balanced", max_iter=MOST_ITERATIONS)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(points[labels.train], truth[labels.train])
        converged.append(not any(one.category is ConvergenceWarning for one in told))
        val = _decided(model, points[labels.val], classes)
        tried.append((labels.val_score(val), val, model))
    scores = [score or (-math.inf, 0.0) for score, _, _ in tried]
    best = max(range(len(grid)), key=scores.__getitem__)
    _, val, model = tried[best]
    return Trained(
        val=val,
        test=_decided(model, points[labels.test], classes),
        curve=[],
        facts={
            "penalty": grid[best],
            "penalties": list(grid),
            "trials": len(grid),
            "val_scores": [score and score[0] for score, _, _ in tried],
        },
        unfinished="" if converged[best] else "the logistic regression did not converge",
    )


def knn(
    features: NDArray[np.float32], truth: NDArray[np.int64], labels: Labels, *, classes: int
) -> Trained:
    """A vote of the nearest by cosine, weighted by likeness (Wu et al., arXiv 1805.01978).

    Unlike the paper, a class's votes are divided by its share of the training images, because
    what is judged is balanced too.

    Args:
        features: `(images, embed_dim)` of all of the task's images.
        truth: `(images,)`: the classes.
        labels: Of the cell.
        classes: How many there are.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    points = features / np.maximum(lengths, np.finfo(np.float32).tiny)
    known = truth[labels.train]
    share = np.bincount(known, minlength=classes) / len(known)

    def votes(places: NDArray[np.int64]) -> NDArray[np.float32]:
        likeness = points[places] @ points[labels.train].T / TEMPERATURE  # (places, train)
        count = min(NEIGHBOURS, likeness.shape[1])
        nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        weights = np.take_along_axis(likeness, nearest, axis=1)
        weights -= logsumexp(weights, axis=1, keepdims=True)
        said = known[nearest]
        each = [np.where(said == k, np.exp(weights), 0).sum(axis=1) for k in range(classes)]
        return np.log((np.stack(each, axis=1) + NO_VOTE) / share).astype(np.float32)

    return Trained(
        val=votes(labels.val),
        test=votes(labels.test),
        curve=[],
        facts={"neighbours": NEIGHBOURS, "trials": 1},
    )


PROTOCOLS = {"linear": linear, "knn": knn}


def _decided(
    model: LogisticRegression, points: NDArray[np.float64], classes: int
) -> NDArray[np.float32]:
    """Logits `(images, classes)`."""
    if not len(points):
        return np.zeros((0, classes), np.float32)
    decision = model.decision_function(points)
    if classes == 2:
        decision = np.stack([-decision / 2, decision / 2], axis=1)
    return decision.astype(np.float32)
