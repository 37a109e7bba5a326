"""What a metric says of stored scores, and what it would say without each patient.

Every function takes logits (..., images, classes): the leading axes are models (arms, fractions,
repeats) that saw the same test images, and all models are measured at once. A metric with an
interval returns `Measured`, from which `jackknife` makes one; the others return plain numbers.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ECE_BINS = 15  # Guo et al. 2017, "On calibration of modern neural networks" (arXiv 1706.04599)


@dataclass(frozen=True)
class Truth:
    """What is known of the test images.

    Attributes:
        labels: Class of each image (images,).
        patients: Patient of each image, numbered from 0 without gaps (images,).
        folds: Fold in which each patient is tested; all 0 for a fixed split (patients,).
        classes: Number of classes.
    """

    labels: Ints
    patients: Ints
    folds: Ints
    classes: int

    @cached_property
    def images_of(self) -> Ints:
        """Images of each class that each patient has (classes, patients)."""
        counts = np.zeros((self.classes, len(self.folds)), dtype=np.int64)
        np.add.at(counts, (self.labels, self.patients), 1)
        return counts

    @property
    def carriers(self) -> Ints:
        """Patients that carry each class (classes,)."""
        return (self.images_of > 0).sum(axis=1)

    @property
    def others(self) -> Ints:
        """Patients that carry any other class, for each class (classes,)."""
        return (self.images_of.sum(axis=0) - self.images_of > 0).sum(axis=1)


@dataclass(frozen=True)
class Measured:
    """A metric of many models, with what the delete-one-patient jackknife needs.

    Attributes:
        value: The metric (...,); NaN where it is not defined.
        without: The metric without each patient (..., patients).
        floor: Distance from 0 and 1 that the test set can resolve, for the logit scale.
        scarcest: Patients on the scarcest side: positives or negatives, or the rarest class.
        sides: For the binary AUC, each patient's share of the error as positives and as
            negatives (..., 2, patients), linear in the model; None for other metrics.
        side_patients: Patients on either side, with `sides`.
    """

    value: Floats
    without: Floats
    floor: float
    scarcest: int
    sides: Floats | None = None
    side_patients: tuple[int, int] | None = None


def auc(logits: Floats, truth: Truth) -> Measured:
    """Area under the ROC curve: binary, or the macro mean of one class against the rest.

    Pairs of images are compared within a fold only: scores of two folds come from two models and
    have no common scale.
    """
    if truth.classes == 2:
        return _binary_auc(logits[..., 1] - logits[..., 0], truth)
    odds = _against_rest(logits)
    classes = [_one_auc(odds[..., k], truth.labels == k, truth) for k in range(truth.classes)]
    return Measured(
        value=np.mean([one.value for one in classes], axis=0),
        without=np.mean([one.without for one in classes], axis=0),
        floor=max(one.floor for one in classes),
        scarcest=int(min(truth.carriers.min(), truth.others.min())),
    )


def balanced_accuracy(logits: Floats, truth: Truth) -> Measured:
    """Mean over classes of the share of the class's images whose highest logit is the right one."""
    right = (logits.argmax(axis=-1) == truth.labels).astype(np.float64)  # (..., images)
    value, without = [], []
    for k, images in enumerate(truth.images_of):
        hits = _sum_by_patient(right * (truth.labels == k), truth.patients)
        total = hits.sum(axis=-1, keepdims=True)
        value.append(_share(total[..., 0], images.sum()))
        without.append(_share(total - hits, images.sum() - images))
    return Measured(
        value=np.mean(value, axis=0),
        without=np.mean(without, axis=0),
        floor=1 / (4 * max(int(truth.images_of.sum(axis=1).min()), 1)),
        scarcest=int(truth.carriers.min()),
    )


def average_precision(logits: Floats, truth: Truth) -> Floats:
    """Average precision (...,), the macro mean over classes where there are more than two."""
    if truth.classes == 2:
        return _average_precision(logits[..., 1] - logits[..., 0], truth.labels == 1)
    odds = _against_rest(logits)
    each = [_average_precision(odds[..., k], truth.labels == k) for k in range(truth.classes)]
    return np.mean(each, axis=0)


def f1(logits: Floats, truth: Truth) -> Floats:
    """F1 at the highest logit (...,), the macro mean over classes where there are more than two."""
    chosen = logits.argmax(axis=-1)

    def one(k: int) -> Floats:
        positive, said = truth.labels == k, chosen == k
        hits = (said & positive).sum(axis=-1)
        return _share(2 * hits, said.sum(axis=-1) + positive.sum(), empty=0.0)

    kinds = [1] if truth.classes == 2 else range(truth.classes)
    return np.mean([one(k) for k in kinds], axis=0)


def brier(logits: Floats, truth: Truth) -> Floats:
    """Brier score (...,): squared distance of the probabilities from the truth.

    For two classes that of the positive class, in [0, 1]; for more the sum over classes, in
    [0, 2], as Brier (1950) wrote it.
    """
    error = softmax(logits, axis=-1) - np.eye(truth.classes)[truth.labels]
    squared = (error**2).sum(axis=-1).mean(axis=-1)
    return squared / 2 if truth.classes == 2 else squared


def calibration_error(logits: Floats, truth: Truth) -> Floats:
    """Expected calibration error of the chosen class (...,), over 15 bins of equal width."""
    confidence = np.exp(log_softmax(logits, axis=-1).max(axis=-1))
    right = logits.argmax(axis=-1) == truth.labels
    places = np.clip(np.ceil(confidence * ECE_BINS) - 1, 0, ECE_BINS - 1)
    gap = np.zeros(logits.shape[:-2])
    for place in range(ECE_BINS):
        gap += np.abs(((confidence - right) * (places == place)).sum(axis=-1))
    return gap / len(truth.labels)


def by_patient(logits: Floats, truth: Truth) -> tuple[Floats, Truth] | None:
    """Mean logits (..., patients, classes) of each patient, and the patients as units of their own.

    A patient is positive with any positive image. With more than two classes every patient must
    carry one class alone; None where one does not.
    """
    carried = truth.images_of > 0
    if truth.classes > 2 and (carried.sum(axis=0) != 1).any():
        return None
    labels = np.array([np.flatnonzero(column).max() for column in carried.T])
    means = np.stack(
        [
            _sum_by_patient(logits[..., k], truth.patients) / truth.images_of.sum(axis=0)
            for k in range(truth.classes)
        ],
        axis=-1,
    )
    return means, replace(truth, labels=labels, patients=np.arange(len(labels)))


def win_margins(scores: Floats, positive: Bools, patients: Ints) -> Floats:
    """Margins of the patient-by-patient win matrix (..., 3, patients).

    The win matrix U[p, q] counts the pairs of a positive image of patient p and a negative image
    of patient q in which the positive scores higher, a tie for half. An AUC and all its
    delete-one values need no more of it than row sums, column sums and diagonal, and these follow
    from midranks in O(images log images). All sums are of halves, so they are exact.

    Args:
        scores: (..., images).
        positive: (images,).
        patients: Patient of each image, numbered from 0 without gaps (images,).
    """
    ranks = rankdata(scores, axis=-1)
    above = ranks[..., positive] - rankdata(scores[..., positive], axis=-1)  # negatives beaten
    below = ranks[..., ~positive] - rankdata(scores[..., ~positive], axis=-1)  # positives lost to
    wins = np.zeros(scores.shape)
    wins[..., positive] = above
    lost = np.zeros(scores.shape)
    lost[..., ~positive] = positive.sum() - below

    # Sorted by patient first, a positive also beats all negatives of earlier patients: take them
    # away and the wins within its own patient are left.
    keys = ranks + patients * (scores.shape[-1] + 1)
    negatives = np.bincount(patients[~positive], minlength=patients.max() + 1)
    earlier = (np.cumsum(negatives) - negatives)[patients[positive]]
    own = np.zeros(scores.shape)
    own[..., positive] = (
        rankdata(keys, axis=-1)[..., positive] - rankdata(keys[..., positive], axis=-1) - earlier
    )
    return np.stack([_sum_by_patient(part, patients) for part in (wins, lost, own)], axis=-2)


@dataclass(frozen=True)
class _OneAuc:
    value: Floats
    without: Floats
    floor: float
    sides: Floats


def _binary_auc(scores: Floats, truth: Truth) -> Measured:
    one = _one_auc(scores, truth.labels == 1, truth)
    negative, positive = (int(count) for count in truth.carriers)
    return Measured(
        value=one.value,
        without=one.without,
        floor=one.floor,
        scarcest=min(negative, positive),
        sides=one.sides,
        side_patients=(positive, negative),
    )


def _one_auc(scores: Floats, positive: Bools, truth: Truth) -> _OneAuc:
    wins = np.zeros((*scores.shape[:-1], 3, len(truth.folds)))
    pairs = np.zeros((3, len(truth.folds)))
    for fold in np.unique(truth.folds):
        here = truth.folds == fold
        images = here[truth.patients]
        numbers = (np.cumsum(here) - 1)[truth.patients[images]]
        wins[..., here] = win_margins(scores[..., images], positive[images], numbers)
        plus = np.bincount(numbers[positive[images]], minlength=here.sum())
        minus = np.bincount(numbers[~positive[images]], minlength=here.sum())
        pairs[:, here] = plus * minus.sum(), plus.sum() * minus, plus * minus
    won, all_pairs = wins[..., 0, :].sum(axis=-1), pairs[0].sum()
    left = won[..., None] - wins[..., 0, :] - wins[..., 1, :] + wins[..., 2, :]
    value = _share(won, all_pairs)
    return _OneAuc(
        value=value,
        without=_share(left, all_pairs - pairs[0] - pairs[1] + pairs[2]),
        floor=1 / (2 * max(all_pairs, 1.0)),
        sides=_share(wins[..., :2, :] - value[..., None, None] * pairs[:2], all_pairs),
    )


def _against_rest(logits: Floats) -> Floats:
    """Log-odds of each class (..., images, classes): rank like probabilities, never saturate.

    Rounded, so that logits in another order of classes tie as they should.
    """
    nothing = np.full((*logits.shape[:-1], 1), -np.inf)
    before = np.logaddexp.accumulate(logits, axis=-1)[..., :-1]
    after = np.logaddexp.accumulate(logits[..., ::-1], axis=-1)[..., -2::-1]
    rest = np.logaddexp(
        np.concatenate([nothing, before], axis=-1), np.concatenate([after, nothing], axis=-1)
    )
    return (logits - rest).round(9)


def _average_precision(scores: Floats, positive: Bools) -> Floats:
    """Mean over positives of the precision at their own score (...,); ties count on both sides."""
    ranks = rankdata(scores, method="min", axis=-1)[..., positive]
    among = rankdata(scores[..., positive], method="min", axis=-1)
    precision = (positive.sum() + 1 - among) / (len(positive) + 1 - ranks)
    return _share(precision.sum(axis=-1), positive.sum())


def _sum_by_patient(values: Floats, patients: Ints) -> Floats:
    """Sums over each patient's images (..., patients) of values (..., images)."""
    order = np.argsort(patients, kind="stable")
    firsts = np.flatnonzero(np.diff(patients[order], prepend=-1))
    return np.add.reduceat(values[..., order], firsts, axis=-1)


def _share(part: Any, whole: Any, *, empty: float = np.nan) -> Floats:
    """`part / whole`, and `empty` where the whole is nothing."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    shape = np.broadcast_shapes(part.shape, whole.shape)
    return np.divide(
        part, whole, out=np.full(shape, empty), where=np.broadcast_to(whole, shape) > 0
    )
