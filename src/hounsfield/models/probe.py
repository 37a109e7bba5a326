"""What frozen features are worth: nearest neighbours and a linear classifier."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

NEIGHBOURS = 20


def knn(features: Tensor, labels: NDArray[np.int64], *, fitted: NDArray[np.bool_]) -> float:
    """AUC of a vote of the 20 nearest by cosine (Wu et al., arXiv 1805.01978).

    Args:
        features: `(images, embed_dim)`.
        labels: `(images,)`: class numbers.
        fitted: `(images,)`: which images vote; the others are judged.

    Returns:
        The mean one-against-rest AUC over the classes that can be judged; NaN where none can.
    """
    points = torch.nn.functional.normalize(features.float(), dim=1).cpu().numpy()
    neighbours = min(NEIGHBOURS, int(fitted.sum()))
    vote = KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute")
    vote.fit(points[fitted], labels[fitted])
    return _auc(labels[~fitted], vote.predict_proba(points[~fitted]), vote.classes_)


def linear(features: Tensor, labels: NDArray[np.int64], *, fitted: NDArray[np.bool_]) -> float:
    """AUC of a logistic regression on standardised features; arguments and result as of `knn`."""
    points = features.float().cpu().numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near the end is near enough here
        model.fit(points[fitted], labels[fitted])
    return _auc(labels[~fitted], model.predict_proba(points[~fitted]), model.classes_)


def _auc(
    labels: NDArray[np.int64], chances: NDArray[np.float64], classes: NDArray[np.int64]
) -> float:
    each = [
        roc_auc_score(labels == kind, chances[:, column])
        for column, kind in enumerate(classes)
        if 0 < np.count_nonzero(labels == kind) < len(labels)
    ]
    return float(np.mean(each)) if each else float("nan")
