"""Studies on a fixed test set, scores drawn directly; both arms have exactly the same true AUC.

A score is the arm's skill on positives, a patient's level and conspicuity, patient by repeat, and
noise that runs along the slices. One arm has larger random effects than the other, so the two are
equal in their mean AUC and in nothing else.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.signal import lfilter

from hounsfield.judge.metrics import Truth

Floats = NDArray[np.float64]

FRACTIONS = (1.0, 0.1)
TRUE_AUC = {0.80: (0.86, 0.80), 0.95: (0.97, 0.95)}  # at FRACTIONS
REPEAT_SD = {0.80: (0.010, 0.020), 0.95: (0.005, 0.010)}  # of the AUC, over repeats
REPEATS = 5
POSITIVE_SHARE = 0.43  # of patients
SLICES = (20, 60)  # of a patient
BLOCK = (0.25, 0.65)  # share of a positive patient's slices that are positive, in one block
CROSSED, NOISE = 0.05, 0.65  # variances: patient by repeat by arm; a slice's noise
BETWEEN_ARMS, BETWEEN_FRACTIONS = 0.7, 0.8  # correlations of a patient's effects
ALONG_SLICES = 0.8  # autocorrelation of the noise


@dataclass(frozen=True)
class Arm:
    """Variances of an arm's patient effects, and how much more than usual its skill varies."""

    patient: float
    conspicuity: float
    unrest: float


ARMS = {"calm": Arm(0.30, 0.25, 1.0), "restless": Arm(0.50, 0.45, 1.5)}


def study(rng: np.random.Generator, patients: int, auc: float) -> tuple[Floats, Truth]:
    """Logits (arms, fractions, repeats, images, classes) of one study, and its truth."""
    n_slices = rng.integers(SLICES[0], SLICES[1] + 1, patients)
    there = np.arange(SLICES[1]) < n_slices[:, None]  # (patients, slices)
    positive = np.zeros_like(there)
    for patient in rng.permutation(patients)[: round(POSITIVE_SHARE * patients)]:
        length = round(rng.uniform(*BLOCK) * n_slices[patient])
        first = rng.integers(n_slices[patient] - length + 1)
        positive[patient, first : first + length] = True

    shape = (len(ARMS), len(FRACTIONS), REPEATS, *there.shape)
    kinds = list(ARMS.values())
    of_patient = np.sqrt([arm.patient for arm in kinds])[:, None, None] * effects(rng, patients)
    of_positives = np.sqrt([arm.conspicuity for arm in kinds])[:, None, None]
    of_positives = of_positives * effects(rng, patients)
    scores = (
        of_patient[:, :, None, :, None]
        + of_positives[:, :, None, :, None] * positive
        + np.sqrt(CROSSED) * rng.normal(size=(*shape[:-1], 1))
        + np.sqrt(NOISE / 2) * running(rng, (1, 1, 1, *there.shape))
        + np.sqrt(NOISE / 4) * running(rng, (len(ARMS), 1, 1, *there.shape))
        + np.sqrt(NOISE / 4) * running(rng, shape)
        + skills(rng, auc) * positive
    )[..., there]
    owner = np.repeat(np.arange(patients), n_slices)
    truth = Truth(positive[there].astype(np.int64), owner, np.zeros(patients, dtype=np.int64), 2)
    return np.stack([np.zeros_like(scores), scores], axis=-1), truth


def effects(rng: np.random.Generator, patients: int) -> Floats:
    """Standard normal patient effects (arms, fractions, patients), correlated across both."""
    arms = BETWEEN_ARMS + (1 - BETWEEN_ARMS) * np.eye(len(ARMS))
    fractions = BETWEEN_FRACTIONS + (1 - BETWEEN_FRACTIONS) * np.eye(len(FRACTIONS))
    root = np.linalg.cholesky(np.kron(arms, fractions))
    drawn = root @ rng.normal(size=(len(root), patients))
    return drawn.reshape(len(ARMS), len(FRACTIONS), patients)


def running(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Standard normal noise, autocorrelated along the last axis."""
    fresh = np.sqrt(1 - ALONG_SLICES**2)
    drawn = rng.normal(size=shape) * fresh
    drawn[..., 0] /= fresh
    return lfilter([1.0], [1.0, -ALONG_SLICES], drawn, axis=-1)


def skills(rng: np.random.Generator, auc: float) -> Floats:
    """Skill of every model (arms, fractions, repeats, 1, 1) such that the mean AUC is exact.

    A positive and a negative of two patients differ by a normal of known spread, so the AUC of
    infinitely many patients is the normal distribution function of skill over spread.
    """
    skill = np.zeros((len(ARMS), len(FRACTIONS), REPEATS, 1, 1))
    shared = rng.normal(size=(len(FRACTIONS), REPEATS))
    for a, arm in enumerate(ARMS.values()):
        spread = np.sqrt(2 * (arm.patient + CROSSED + NOISE) + arm.conspicuity)
        for f, (true, sd) in enumerate(zip(TRUE_AUC[auc], REPEAT_SD[auc], strict=True)):
            z = stats.norm.ppf(true)
            unrest = arm.unrest * sd * spread / stats.norm.pdf(z)
            mixed = np.sqrt(0.5) * (shared[f] + rng.normal(size=REPEATS))
            skill[a, f, :, 0, 0] = z * np.hypot(spread, unrest) + unrest * mixed
    return skill
