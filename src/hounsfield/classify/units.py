"""What is judged: slices, or patients with all of their slices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from hounsfield.judge.view import Level
from hounsfield.study.task import Pooling, Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """The labelled units of a part at one level.

    Attributes:
        members: For each unit the places of its slices within the part.
        labels: `(units,)`.
        patients: Whose each unit is.
    """

    members: tuple[NDArray[np.int64], ...]
    labels: NDArray[np.int64]
    patients: tuple[str, ...]

    def patients_of(self, label: int) -> int:
        """How many patients have a unit of this class."""
        pairs = zip(self.patients, self.labels, strict=True)
        return len({patient for patient, own in pairs if own == label})

    def pooled(self, logits: NDArray[np.float32], how: Pooling) -> Floats:
        """Logits `(units, classes)` from those of the part's slices `(slices, classes)`."""
        wide = logits.astype(np.float64)
        none = np.zeros((0, wide.shape[1]))
        return (
            np.stack([Pool(how).add(wide[rows]).logits() for rows in self.members])
            if self.members
            else none
        )


def units_of(task: Task, places: NDArray[np.int64]) -> Mapping[Level, Units]:
    """The units of the images at `places`, at every level at which they have labels.

    Slices have labels of their own where the task is one of slices. A patient is positive with
    any positive slice; with more than two classes every patient must carry one class alone.
    """
    rows = task.images[places.tolist()]
    labels = rows["label"].to_numpy().astype(np.int64)
    patients = rows["patient"].to_numpy()
    found: dict[Level, Units] = {}
    if task.config.level == "slice":
        single = tuple(np.array([place]) for place in range(len(labels)))
        found["slice"] = Units(single, labels, tuple(patients))
    names = tuple(sorted(set(patients)))
    members = tuple(np.flatnonzero(patients == name) for name in names)
    if len(task.classes) == 2 or all(len(set(labels[own])) == 1 for own in members):
        highest = np.array([labels[own].max() for own in members], dtype=np.int64)
        found["patient"] = Units(members, highest, names)
    return found


class Pool:
    """The logits of many slices as one row, in as much memory as one slice's take.

    Args:
        how: The mean logit, the logarithm of the mean probability, or, of two classes, the slice
            with the highest odds of the second.
    """

    def __init__(self, how: Pooling) -> None:
        self.how, self.slices = how, 0
        self._total: Floats | None = None

    def add(self, logits: Floats) -> "Pool":
        """Take in the logits `(slices, classes)` of more slices; returns itself."""
        if self.how == "mean_probability":
            logits = log_softmax(logits, axis=1)
        before = [] if self._total is None else [self._total[None]]
        self._total = _TOTALS[self.how](np.concatenate([*before, logits]))
        self.slices += len(logits)
        return self

    def logits(self) -> Floats:
        """One row `(classes,)`.

        Raises:
            ValueError: Nothing was added.
        """
        if self._total is None:
            raise ValueError("no slices to pool")
        if self.how == "mean_logit":
            return self._total / self.slices
        return self._total - (np.log(self.slices) if self.how == "mean_probability" else 0)


def _surest(logits: Floats) -> Floats:
    return logits[np.argmax(logits[:, 1] - logits[:, 0])]


_TOTALS: Mapping[Pooling, Callable[[Floats], Floats]] = {
    "mean_logit": partial(np.sum, axis=0),
    "max_odds": _surest,
    "mean_probability": partial(np.logaddexp.reduce, axis=0),
}


def a_patient_once(patients: Sequence[str]) -> Floats:
    """A weight a unit; those of a patient add up to 1."""
    _, inverse, counts = np.unique(list(patients), return_inverse=True, return_counts=True)
    return 1 / counts[inverse]
