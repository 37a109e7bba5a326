"""What a pilot says about a study to come: the smallest effect to be seen, patients, repeats.

The variance of a difference has three parts: of patients, of repeats, and of patient by repeat.
A planned study shrinks them by its own numbers, and a non-central t tells its power. Assumes as
many slices per patient and as large a share of positive patients as in the pilot.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import ndtr

from hounsfield.judge.jackknife import Components, spread

Floats = NDArray[np.float64]

POWER = 0.8
BISECTIONS = 26  # far below a thousandth of a standard error
NODES = 32
CHANCES = 9  # at which a range of the pilot's variance is looked at
MOST_PATIENTS = 100_000
ENDLESS = 1_000_000  # repeats


@dataclass(frozen=True)
class Pilot:
    """The parts of the variance of a difference, each (...,).

    Attributes:
        patients: Variance between patients, for one patient.
        repeats: Variance between repeats, for one repeat.
        both: Variance of patient by repeat, for one of each.
        patient_df: Degrees of freedom on which `patients` rests.
        folds: Of the cross-validation, 1 for a fixed test set.
    """

    patients: Floats
    repeats: Floats
    both: Floats
    patient_df: Floats
    folds: int = 1


def typical(*, folds: int = 1) -> Pilot:
    """What stands in for a pilot before there is one: a difference of two arms at AUC 0.80.

    Measured on simulated studies with 50 patients, 43 % of them positive, in which repeats vary by
    0.02 to 0.03 (`benchmarks/coverage.py`, the lines `typical_*`). A real task may differ by half.
    """
    return Pilot(np.array(0.058), np.array(0.0007), np.array(0.027), np.array(49.0), folds)


def pilot(parts: Components, patient_df: Floats | float, *, folds: int = 1) -> Pilot:
    """The parts for one patient and one repeat.

    With a single repeat nothing is known of training: `repeats` and `both` are 0.
    """
    return Pilot(
        patients=parts.n_patients * parts.shared,
        repeats=np.maximum(parts.repeats - parts.crossed, 0.0),
        both=parts.n_patients * parts.crossed,
        patient_df=np.asarray(patient_df, dtype=np.float64),
        folds=folds,
    )


def power(
    of: Pilot,
    effect: Floats | float,
    *,
    patients: int,
    repeats: int,
    alpha: Floats | float = 0.05,
) -> Floats:
    """Probability (...,) that a difference of `effect` is found."""
    error, df = _error(of, patients, repeats)
    return _found(np.asarray(effect) / error, _critical(df, alpha))


def smallest_effect(
    of: Pilot, *, patients: int, repeats: int, alpha: Floats | float = 0.05
) -> Floats:
    """The difference (...,) that is found with a probability of 80 %; NaN without variance."""
    error, df = _error(of, patients, repeats)
    critical = _critical(df, alpha)
    low = np.zeros_like(critical[..., 0])
    high = critical[..., -1] + 10.0  # in standard errors; beyond any critical value
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        enough = _found(middle, critical) >= POWER
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high * error


def smallest_effect_range(
    of: Pilot, *, patients: int, repeats: int, alpha: float = 0.05
) -> tuple[Floats, Floats]:
    """The 80 % range of `smallest_effect`, for a pilot's patients are few themselves.

    Over the 80 % range of their variance and not at its ends alone: where repeats are few, less
    variance between patients leaves fewer degrees of freedom, and the effect grows again.
    """
    chances = np.linspace(0.1, 0.9, CHANCES)
    factors = [1.0, *(of.patient_df / stats.chi2.ppf(chance, of.patient_df) for chance in chances)]
    scaled = [replace(of, patients=of.patients * factor) for factor in factors]
    effects = [
        smallest_effect(one, patients=patients, repeats=repeats, alpha=alpha) for one in scaled
    ]
    return np.minimum.reduce(effects), np.maximum.reduce(effects)


def floor_of_repeats(of: Pilot, *, patients: int, alpha: float = 0.05) -> Floats:
    """What no number of repeats can get below (...,): the smallest effect of endless repeats."""
    return smallest_effect(of, patients=patients, repeats=ENDLESS, alpha=alpha)


def patients_needed(of: Pilot, effect: float, *, repeats: int, alpha: float = 0.05) -> int | None:
    """Fewest test patients with which `effect` is found with 80 %; None if none suffice.

    Args:
        of: A single question's pilot.
        effect: Difference to be found, above 0.
        repeats: Of the planned study.
        alpha: Level of the test; divide it by the comparisons of a family.
    """

    def enough(patients: int) -> bool:
        seen = smallest_effect(of, patients=patients, repeats=repeats, alpha=alpha)
        return bool(seen <= effect)

    few, many = 2, MOST_PATIENTS
    if not enough(many):
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def _error(of: Pilot, patients: int, repeats: int) -> tuple[Floats, Floats]:
    """Standard error (...,) and degrees of freedom of a planned study."""
    from_patients, crossed = of.patients / patients, of.both / patients
    own = from_patients + crossed
    if repeats == 1:  # nothing but the patients can be measured
        parts = Components(np.zeros_like(own), own, own, 1, patients)
    else:
        parts = Components(of.repeats + crossed, from_patients, own, repeats, patients)
    of_repeats, of_patients = spread(parts, folds=of.folds)
    variance = of_repeats + of_patients
    below = of_repeats**2 / max(repeats - 1, 1) + of_patients**2 / (patients - 1)
    df = np.divide(variance**2, below, out=np.ones_like(variance), where=below > 0)
    return np.sqrt(np.where(variance > 0, variance, np.nan)), df


def _critical(df: Floats, alpha: Floats | float) -> Floats:
    """What an estimate must exceed, in true standard errors (..., nodes).

    The estimated standard error varies like the root of chi-square over its degrees of freedom;
    the nodes are its values at Gauss points of its distribution. A non-central t is the mean over
    them, without the overflow that library versions of it have where the degrees are few.
    """
    points, _ = _gauss()
    limit = stats.t.ppf(1 - np.asarray(alpha) / 2, df)[..., None]
    return limit * np.sqrt(stats.chi2.ppf(points, df[..., None]) / df[..., None])


def _found(shift: Floats, critical: Floats) -> Floats:
    """Probability (...,) of an estimate beyond the critical value, for a shift in errors (...,)."""
    shift, (_, weights) = shift[..., None], _gauss()
    return (ndtr(shift - critical) + ndtr(-shift - critical)) @ weights


@cache
def _gauss() -> tuple[Floats, Floats]:
    """Points on (0, 1) and their weights (nodes,)."""
    points, weights = np.polynomial.legendre.leggauss(NODES)
    return (points + 1) / 2, weights / 2
