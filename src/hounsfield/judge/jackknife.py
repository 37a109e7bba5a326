"""The crossed jackknife t: intervals over patients and repeats at once.

The analysis of Obuchowski and Rockette (1995) with repeats in the place of readers: the variance
of a mean over repeats has one part that shrinks with repeats and one that shrinks with patients,
and the second is read off the delete-one-patient jackknife covariance *between* repeats. Degrees
of freedom after Satterthwaite (1946) as in Hillis (2007), with a term for the patients too.

The variance of a few repeats comes out small by luck now and then. It is made of what repeats vary
by on any patients and of what patients and repeats vary by together; the second is known from all
patients, and the whole is never taken for less.

Cross-validation needs more: the patients that judge one fold train the others, and all repeats
draw their training sets from the same patients, so repeats average out less than they seem to.
There both parts grow with the patients that test for each that trains, 1 / (folds - 1): the
variance over repeats counts 1 / repeats + 1 / (folds - 1) times (Nadeau and Bengio 2003), that of
patients 1 + 1 / (folds - 1) times. Drops do not need it (`questions.folds_felt`). This is a remedy
found by simulation, not derived; `benchmarks/coverage.py` shows what it holds.

Every function takes estimates (..., repeats) and their delete-one-patient values
(..., repeats, patients); leading axes are separate questions, answered at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, logit

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
NOTHING = 1e-24  # a variance below this is rounding


@dataclass(frozen=True)
class Intervals:
    """Means over repeats with their intervals, all (...,); NaN where there is none.

    Attributes:
        estimate: Mean over repeats.
        low: Lower limit.
        high: Upper limit.
        p: Two-sided p of no difference; NaN for a single arm.
        df: Degrees of freedom.
    """

    estimate: Floats
    low: Floats
    high: Floats
    p: Floats
    df: Floats


@dataclass(frozen=True)
class Components:
    """Variance of one question, in parts, all (...,).

    Attributes:
        repeats: Variance of the estimate over repeats (S2).
        shared: Jackknife covariance between different repeats, at least 0 (C2).
        own: Jackknife variance within a repeat, mean over repeats (D).
        n_repeats: Number of repeats.
        n_patients: Number of test patients.
    """

    repeats: Floats
    shared: Floats
    own: Floats
    n_repeats: int
    n_patients: int

    @property
    def crossed(self) -> Floats:
        """What patients and repeats vary by together, within one repeat; at least 0."""
        return np.maximum(self.own - self.shared, 0.0)


def components(theta: Floats, without: Floats) -> Components:
    """The parts of the variance; with one repeat its own jackknife variance is all there is."""
    n_repeats, n_patients = without.shape[-2:]
    covariance = _covariance(without)
    own = np.trace(covariance, axis1=-2, axis2=-1) / n_repeats
    if n_repeats == 1:
        return Components(np.zeros_like(own), own, own, n_repeats, n_patients)
    pairs = n_repeats * (n_repeats - 1)
    shared = np.maximum((covariance.sum(axis=(-2, -1)) - own * n_repeats) / pairs, 0.0)
    return Components(theta.var(axis=-1, ddof=1), shared, own, n_repeats, n_patients)


def spread(parts: Components, *, folds: int) -> tuple[Floats, Floats]:
    """The variance of the mean (...,) that repeats and that patients bring.

    Args:
        parts: Of one repeat's estimate.
        folds: 1 for a fixed test set.
    """
    again = 1 / (folds - 1) if folds > 1 else 0.0  # patients that test, for each that trains
    of_repeats = np.maximum(parts.repeats, parts.crossed)
    return of_repeats * (1 / parts.n_repeats + again), parts.shared * (1 + again)


def contrast(
    theta: Floats,
    without: Floats,
    patient_df: Floats | float,
    *,
    folds: int = 1,
) -> Intervals:
    """Intervals and p-values of differences, on the raw scale.

    Args:
        theta: Difference in each repeat (..., repeats).
        without: The same without each patient (..., repeats, patients).
        patient_df: Degrees of freedom of the patients' part (...,), from `welch_df`.
        folds: Of the cross-validation, as far as the questions feel it; 1 for a fixed test set.
    """
    of_repeats, of_patients = spread(components(theta, without), folds=folds)
    mean = theta.mean(axis=-1)
    half, df = _half_width(of_repeats, of_patients, theta.shape[-1], patient_df)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(mean) / np.sqrt(of_repeats + of_patients)
    p = np.where(np.isnan(half), np.nan, 2 * stats.t.sf(t, df))
    return Intervals(mean, mean - half, mean + half, p, df)


def level(
    theta: Floats,
    without: Floats,
    patient_df: Floats | float,
    *,
    floor: float,
    folds: int = 1,
) -> Intervals:
    """Intervals of single values in (0, 1), on the logit scale with the jackknife taken there.

    Args:
        theta: Value in each repeat (..., repeats).
        without: The same without each patient (..., repeats, patients).
        patient_df: Degrees of freedom of the patients' part: scarcest side's patients less one.
        floor: Values are kept this far from 0 and 1.
        folds: Of the cross-validation, as far as the questions feel it; 1 for a fixed test set.
    """
    of_repeats, of_patients = spread(components(theta, without), folds=folds)
    n_repeats, n_patients = without.shape[-2:]
    mean = theta.mean(axis=-1)
    middle = np.clip(mean, floor, 1 - floor)
    slope = 1 / (middle * (1 - middle))
    raw = _covariance(without).mean(axis=(-2, -1))
    bent = logit(np.clip(without.mean(axis=-2), floor, 1 - floor)).var(axis=-1) * (n_patients - 1)
    stretch = np.divide(bent, raw, out=np.ones_like(raw), where=raw > NOTHING)
    half, df = _half_width(
        slope**2 * of_repeats,
        stretch * of_patients,
        n_repeats,
        patient_df,
    )
    low, high = expit(logit(middle) - half), expit(logit(middle) + half)
    return Intervals(mean, low, high, np.full_like(mean, np.nan), df)


def welch_df(sides: Floats, side_patients: tuple[int, int]) -> Floats:
    """Degrees of freedom (...,) of a difference of AUCs: Welch over the two sides of the curve.

    Args:
        sides: Each patient's share of the error as positives and as negatives, mean over repeats
            (..., 2, patients).
        side_patients: Patients with positives and with negatives, at least two each.
    """
    counts = np.array(side_patients, dtype=np.float64)
    parts = counts / (counts - 1) * (sides**2).sum(axis=-1)  # (..., 2)
    whole, below = parts.sum(axis=-1), (parts**2 / (counts - 1)).sum(axis=-1)
    fewest = np.full_like(whole, counts.min() - 1)
    df = np.divide(whole**2, below, out=fewest, where=below > 0)
    return np.minimum(df, sides.shape[-1] - 1)


def _covariance(without: Floats) -> Floats:
    """Delete-one-patient jackknife covariance between repeats (..., repeats, repeats)."""
    n_patients = without.shape[-1]
    centred = without - without.mean(axis=-1, keepdims=True)
    return (n_patients - 1) / n_patients * centred @ np.swapaxes(centred, -1, -2)


def _half_width(
    of_repeats: Floats,
    of_patients: Floats,
    n_repeats: int,
    patient_df: Floats | float,
) -> tuple[Floats, Floats]:
    variance = of_repeats + of_patients
    free = of_patients**2 / patient_df
    if n_repeats > 1:
        free = free + of_repeats**2 / (n_repeats - 1)
    known = variance > NOTHING
    df = np.divide(variance**2, free, out=np.full_like(variance, np.nan), where=known)
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, df) * np.sqrt(variance)
    return np.where(known, half, np.nan), df
