"""What a protocol is given of a cell, and what it gives back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hounsfield.data.split import Split, strata
from hounsfield.study.classifier import Classifier, predict
from hounsfield.study.images import Images
from hounsfield.study.scores import Score, choice, table
from hounsfield.study.task import Task

ENOUGH = 3  # validation patients a class, below which the last step is taken
FELL = 0.9  # the training loss must end below this share of the loss of guessing


@dataclass(frozen=True)
class Labels:
    """The images of a cell, as places in the task's images.

    Attributes:
        train, val, test: Places, ascending.
        val_score: From logits `(val, classes)` to what the cell maximises; nothing where
            validation lacks a class.
        enough: Whether every class has `ENOUGH` validation patients, so that a step is chosen.
        some: Whether every class has one, so that a learning rate is chosen.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    val_score: Callable[[NDArray[np.float32]], Score | None]
    enough: bool
    some: bool


@dataclass(frozen=True)
class Trained:
    """What a protocol gives back for a cell.

    Attributes:
        val, test: Logits `(images, classes)`.
        curve: Lines of step, loss, lr and, where it was looked at, val.
        facts: What goes into `cell.json`.
        unfinished: Why the training counts as unfinished; empty where it does not.
        model: The network that was judged, where the protocol trains one.
    """

    val: NDArray[np.float32]
    test: NDArray[np.float32]
    curve: list[dict[str, float]]
    facts: dict[str, Any] = field(default_factory=dict)
    unfinished: str = ""
    model: Classifier | None = None


def labels_of(task: Task, split: Split) -> Labels:
    """The labels of the split's patients as places in the task's images."""
    val = task.rows(split.val)
    fewest = _fewest_patients(task, val)
    classes, enough = len(task.classes), fewest >= ENOUGH

    def val_score(logits: NDArray[np.float32]) -> Score | None:
        rows = table(task, val, logits, split="val")
        return choice(rows, classes=classes, enough=enough)

    return Labels(
        train=task.rows(split.train),
        val=val,
        test=task.rows(split.test),
        val_score=val_score,
        enough=enough,
        some=fewest >= 1,
    )


def scored(
    model: Classifier,
    images: Images,
    labels: Labels,
    *,
    size: int,
    curve: Sequence[dict[str, float]],
    steps: int,
    guess: float,
    facts: Mapping[str, Any],
) -> Trained:
    """A trained network with its scores of validation and test, and how far its loss fell.

    Args:
        model: With the weights that are judged.
        images: Of the task.
        labels: Of the cell.
        size: Pixels of what the network sees.
        curve: Of the training.
        steps: That it had.
        guess: The loss of guessing.
        facts: What goes into `cell.json` besides the losses.
    """
    first, last = fall(curve, steps)
    losses = {"train_loss_first": first, "train_loss_last": last, "train_loss_guess": guess}
    return Trained(
        val=predict(model, images, labels.val, size=size),
        test=predict(model, images, labels.test, size=size),
        curve=list(curve),
        facts={**facts, **losses},
        unfinished=unfinished(last, guess),
        model=model,
    )


def fall(curve: Sequence[dict[str, float]], steps: int) -> tuple[float, float]:
    """Mean training loss of the first and of the last tenth of the steps."""
    lines = [line for line in curve if "loss" in line]
    first = [line["loss"] for line in lines if line["step"] <= steps / 10] or [lines[0]["loss"]]
    last = [line["loss"] for line in lines if line["step"] > steps * 0.9] or [lines[-1]["loss"]]
    return float(np.mean(first)), float(np.mean(last))


def unfinished(last: float, guess: float) -> str:
    """Why a training counts as unfinished, or nothing.

    Guessing has a loss that is known: the entropy of the classes in a batch. A training whose
    last tenth has not come below `FELL` of it has learnt next to nothing even about its own
    images, so its score tells of the budget and not of the arm.
    """
    if last <= FELL * guess:
        return ""
    return (
        f"the training loss ended at {last:.3f}, not clearly below the {guess:.3f} of guessing; "
        "give more steps or higher learning rates"
    )


def _fewest_patients(task: Task, places: NDArray[np.int64]) -> int:
    """Patients of the class that has fewest of them at `places`."""
    rows = task.images[places.tolist()]
    carried = strata(rows["patient"].to_list(), rows["label"].to_list()).values()
    return min(sum(label in c for c in carried) for label in range(len(task.classes)))
