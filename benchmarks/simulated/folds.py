"""Studies in grouped cross-validation with models that are really trained; both arms equal in law.

An arm is a feature space in which positives are shifted, patients differ and slices vary. In every
fold, repeat and fraction a linear discriminant learns from the patients drawn for it, jittered as
by a seed, and its scores are put on a scale of its own, for no two networks share one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hounsfield.judge.metrics import Truth

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ARMS = 2
REPEATS = 5
POSITIVE_SHARE = 0.43  # of patients
SLICES = (8, 20)  # of a patient
BLOCK = (0.25, 0.65)  # share of a positive patient's slices that are positive, in one block
SHIFT = 1.2  # of positives, along one direction
PATIENT, NOISE = 0.35, 0.65  # variances of a feature
BETWEEN_ARMS = (0.7, 0.5)  # correlation of patients' and of slices' effects
RIDGE = 0.3
JITTER = 0.05  # of a weight, relative to the weights' norm


@dataclass(frozen=True)
class FoldStudy:
    """A study: logits (arms, fractions, repeats, images, classes), its truth, its models' truth.

    Attributes:
        logits: What the models said.
        truth: The test images.
        true: AUC that the trained models would have on endless patients, mean over repeats and
            over folds by their pairs (arms, fractions).
    """

    logits: Floats
    truth: Truth
    true: Floats


def study(
    rng: np.random.Generator,
    patients: int,
    features: int,
    *,
    n_folds: int,
    fractions: tuple[float, ...],
) -> FoldStudy:
    """One study; few patients and many features make the training matter more."""
    owner, positive = images(rng, patients)
    ill = np.bincount(owner, weights=positive) > 0
    folds = deal(rng, ill, n_folds)
    x = drawn(rng, owner, positive, patients, features)
    learn = np.stack(
        [drawn_for_training(rng, ill, folds, fractions) for _ in range(REPEATS)], axis=1
    )
    weights = trained(x, owner, positive, learn)  # (arms, fractions, repeats, folds, features)
    weights += (
        JITTER * np.linalg.norm(weights, axis=-1, keepdims=True) * rng.normal(size=weights.shape)
    )
    scale = rng.uniform(0.5, 2.0, weights.shape[:-1])
    offset = rng.normal(size=weights.shape[:-1])
    own = folds[owner]  # each image is scored by its fold's models
    scores = np.einsum("afrnd,and->afrn", weights[..., own, :], x)
    scores = scores * scale[..., own] + offset[..., own]
    return FoldStudy(
        logits=np.stack([np.zeros_like(scores), scores], axis=-1),
        truth=Truth(positive.astype(np.int64), owner, folds, 2),
        true=true_auc(weights, own, positive),
    )


def images(rng: np.random.Generator, patients: int) -> tuple[NDArray[np.int64], Bools]:
    """The patient of each image, and whether it is positive (images,)."""
    n_slices = rng.integers(SLICES[0], SLICES[1] + 1, patients)
    owner = np.repeat(np.arange(patients), n_slices)
    positive = np.zeros(len(owner), dtype=bool)
    starts = np.cumsum(n_slices) - n_slices
    for patient in rng.permutation(patients)[: round(POSITIVE_SHARE * patients)]:
        length = max(round(rng.uniform(*BLOCK) * n_slices[patient]), 1)
        first = starts[patient] + rng.integers(n_slices[patient] - length + 1)
        positive[first : first + length] = True
    return owner, positive


def deal(rng: np.random.Generator, ill: Bools, n_folds: int) -> NDArray[np.int64]:
    """A fold for each patient, the positive and the negative ones dealt out evenly."""
    folds = np.zeros(len(ill), dtype=np.int64)
    order = np.concatenate([rng.permutation(np.flatnonzero(ill == kind)) for kind in (True, False)])
    folds[order] = np.arange(len(ill)) % n_folds
    return folds


def drawn(
    rng: np.random.Generator,
    owner: NDArray[np.int64],
    positive: Bools,
    patients: int,
    features: int,
) -> Floats:
    """Features (arms, images, features)."""
    parts = []
    for count, variance, shared in zip(
        (patients, len(owner)), (PATIENT, NOISE), BETWEEN_ARMS, strict=True
    ):
        common = rng.normal(size=(count, features))
        own = rng.normal(size=(ARMS, count, features))
        parts.append(np.sqrt(variance) * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own))
    x = parts[0][:, owner] + parts[1]
    x[..., 0] += SHIFT * positive
    return x


def drawn_for_training(
    rng: np.random.Generator, ill: Bools, folds: NDArray[np.int64], fractions: tuple[float, ...]
) -> Bools:
    """Who trains each fold's model at each fraction (fractions, folds, patients), nested."""
    learn = np.zeros((len(fractions), folds.max() + 1, len(ill)), dtype=bool)
    for fold in range(learn.shape[1]):
        for kind in (True, False):
            there = rng.permutation(np.flatnonzero((ill == kind) & (folds != fold)))
            for place, fraction in enumerate(fractions):
                learn[place, fold, there[: max(round(fraction * len(there)), 2)]] = True
    return learn


def trained(x: Floats, owner: NDArray[np.int64], positive: Bools, learn: Bools) -> Floats:
    """Weights of discriminants (arms, fractions, repeats, folds, features).

    Args:
        x: (arms, images, features).
        owner: (images,).
        positive: (images,).
        learn: Who trains (fractions, repeats, folds, patients).
    """
    features = x.shape[-1]
    patients = learn.shape[-1]
    squares = x[..., :, None] * x[..., None, :]
    mean, scatter = [], np.eye(features) * RIDGE
    for kind in (True, False):
        member = np.zeros((patients, len(owner)))
        member[owner, np.arange(len(owner))] = positive == kind
        share = learn @ member.sum(axis=1)
        sums = learn.astype(float) @ (member @ x)[:, None, None]
        mean.append(sums / share[..., None])
        flat = (member @ squares.reshape(*x.shape[:2], -1))[:, None, None]
        second = (learn.astype(float) @ flat / share[..., None]).reshape(*sums.shape, features)
        scatter = scatter + (second - mean[-1][..., None] * mean[-1][..., None, :]) / 2
    return np.linalg.solve(scatter, (mean[0] - mean[1])[..., None])[..., 0]


def true_auc(weights: Floats, own: NDArray[np.int64], positive: Bools) -> Floats:
    """The mean AUC of the models on endless patients (arms, fractions)."""
    norm = np.sqrt(2 * (PATIENT + NOISE)) * np.linalg.norm(weights, axis=-1)
    each = ndtr(SHIFT * weights[..., 0] / norm)  # (arms, fractions, repeats, folds)
    pairs = np.bincount(own, weights=positive) * np.bincount(own, weights=~positive)
    return (each @ (pairs / pairs.sum())).mean(axis=-1)
