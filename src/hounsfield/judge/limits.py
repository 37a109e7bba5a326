"""When no interval may be printed, and what must stand beside one that is.

The limits come from simulation: below them the intervals keep their level only by being too wide
to say anything, or do not keep it.
"""

import numpy as np

from hounsfield.judge.metrics import Measured, Truth

FEWEST_CARRIERS = 4  # patients on the scarcest side
FEWEST_PATIENTS = 8
FEWEST_IMAGES = 10  # of the rarest class, where slices are judged
FEWEST_FOLDED = 3  # repeats of a cross-validation, for differences
FEW_CARRIERS = 10
FEW_PATIENTS = 20
NEAR_ONE = 0.97


def refusal(
    truth: Truth, measured: Measured, *, unit: str, repeats: int, single: bool = False
) -> str:
    """Why these test patients and repeats allow no interval; empty where they do.

    Args:
        truth: The test images.
        measured: The metric on them.
        unit: What was scored: a slice, a series or a patient.
        repeats: How many repeats the number rests on.
        single: Whether it is of a single arm, not a difference.
    """
    if repeats < FEWEST_FOLDED and not single and len(np.unique(truth.folds)) > 1:
        return (
            f"not enough repeats: {repeats} of a cross-validation; intervals of differences hold "
            f"and tell something from {FEWEST_FOLDED} on"
        )
    n_patients = len(truth.folds)
    if truth.classes == 2:
        negatives, positives = (int(count) for count in truth.carriers)
        if min(negatives, positives) < FEWEST_CARRIERS or n_patients < FEWEST_PATIENTS:
            return (
                f"not enough patients: {positives} of {n_patients} test patients have positives, "
                f"{negatives} have negatives; {FEWEST_CARRIERS} of each and {FEWEST_PATIENTS} in "
                "all are needed"
            )
    elif measured.scarcest < FEWEST_CARRIERS or n_patients < FEWEST_PATIENTS:
        return (
            f"not enough patients: {measured.scarcest} of {n_patients} test patients carry the "
            f"rarest class; {FEWEST_CARRIERS} are needed, and {FEWEST_PATIENTS} in all"
        )
    rarest = int(np.bincount(truth.labels, minlength=truth.classes).min())
    if len(truth.labels) > n_patients and rarest < FEWEST_IMAGES:
        what = "series" if unit == "series" else "images"
        return (
            f"not enough {what}: {rarest} test {what} of the rarest class; "
            f"{FEWEST_IMAGES} are needed"
        )
    return ""


def flags(
    truth: Truth, measured: Measured, *, repeats: int, single: float | None = None
) -> list[str]:
    """What must stand beside an interval.

    Args:
        truth: The test images.
        measured: The metric on them.
        repeats: How many repeats it rests on.
        single: The AUC of a single arm; None for differences and other metrics.
    """
    said = []
    if measured.scarcest < FEW_CARRIERS or len(truth.folds) < FEW_PATIENTS:
        said.append("few patients")
    if single is not None and single >= NEAR_ONE:
        said.append("AUC near 1")
    if repeats == 1:
        said.append("one repeat: test-patient uncertainty only; training variation not measured")
    if repeats == 2:
        said.append("two repeats: training variation has one degree of freedom")
    return said
