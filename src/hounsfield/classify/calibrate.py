"""Probabilities that mean what they say: a temperature and the classes' true shares.

Training shows as many images of each class, so bare logits speak of a world in which classes are
equally common. The logarithm of the classes' shares among the training patients puts that right;
one temperature, fitted on validation patients, takes back the network's over-confidence (Guo et
al., On Calibration of Modern Neural Networks, arXiv 1706.04599).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from hounsfield.classify.units import Units, a_patient_once
from hounsfield.config import Config

Floats = NDArray[np.float64]
LOWEST, HIGHEST = 0.05, 20.0  # temperatures that are looked among


class Calibration(Config):
    """From logits to log-probabilities: `logits / temperature + log(shares)`, normalised.

    Attributes:
        temperature: Above 1 where the network is too sure.
        shares: Of the classes among the training units, adding up to 1.
    """

    temperature: PositiveFloat
    shares: tuple[PositiveFloat, ...]

    def __call__(self, logits: Floats) -> Floats:
        """Probabilities `(units, classes)` of logits `(units, classes)`."""
        return np.exp(self.log_probabilities(logits))

    def log_probabilities(self, logits: Floats) -> Floats:
        """`(units, classes)` of logits `(units, classes)`."""
        return log_softmax(logits / self.temperature + np.log(self.shares), axis=1)


def calibrate(logits: Floats, val: Units, shares: Sequence[float]) -> Calibration:
    """The calibration under which the validation units are likeliest, every patient counting once.

    The labels are smoothed by the number of their patients (Platt, Probabilistic Outputs for
    Support Vector Machines, 1999), so that a few well-parted patients do not make it certain.

    Args:
        logits: `(units, classes)`.
        val: Whose they are.
        shares: Of the classes among the training units.
    """
    units, classes = logits.shape
    seen = np.array([val.patients_of(label) for label in range(classes)])
    targets = np.ones((units, classes))
    targets[np.arange(units), val.labels] += seen[val.labels]
    targets /= targets.sum(axis=1, keepdims=True)
    weighted = a_patient_once(val.patients)[:, None] * targets

    def at(log_temperature: float) -> Calibration:
        return Calibration(temperature=math.exp(log_temperature), shares=tuple(shares))

    found = minimize_scalar(
        lambda guess: -float((weighted * at(guess).log_probabilities(logits)).sum()),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
    )
    return at(float(found.x))


def shares_of(train: Units, classes: int) -> tuple[float, ...]:
    """The share of each class among units, every patient counting once; none is zero."""
    weights = a_patient_once(train.patients)
    counts = np.bincount(train.labels, weights=weights, minlength=classes) + 0.5 / classes
    return tuple(float(share) for share in counts / counts.sum())


def log_loss(log_probabilities: Floats, judged: Units) -> float:
    """Mean negative log-probability of the labels, every patient counting once."""
    picked = log_probabilities[np.arange(len(judged.labels)), judged.labels]
    return -float(np.average(picked, weights=a_patient_once(judged.patients)))
