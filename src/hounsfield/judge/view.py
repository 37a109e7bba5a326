"""A board as it is looked at: slices or patients, a metric, the repeats that a question may use."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from hounsfield.judge import metrics
from hounsfield.judge.jackknife import welch_df
from hounsfield.judge.metrics import Bools, Floats, Measured, Truth
from hounsfield.judge.scores import Board

Metric = Callable[[Floats, Truth], Measured]
Level = Literal["slice", "patient"]
LEVELS: tuple[Level, ...] = ("slice", "patient")
ENOUGH_FOR_ALL = 5  # patients on the scarcest side from which all patients count, where no Welch


def at_level(board: Board, level: str) -> Board | None:
    """The board with its rows or patients as units; None where a patient has no one class."""
    if level == board.unit:
        return board
    pooled = [metrics.by_patient(arm.astype(np.float64), board.truth) for arm in board.logits]
    if pooled[0] is None:
        return None
    logits = np.stack([one[0] for one in pooled if one is not None])
    return replace(board, logits=logits, truth=pooled[0][1])


def measure(metric: Metric, board: Board) -> Measured:
    """The metric of every model of the board (arms, fractions, repeats)."""
    arms = [metric(arm.astype(np.float64), board.truth) for arm in board.logits]
    sides = [arm.sides for arm in arms if arm.sides is not None]
    return replace(
        arms[0],
        value=np.stack([arm.value for arm in arms]),
        without=np.stack([arm.without for arm in arms]),
        sides=np.stack(sides) if sides else None,
    )


def of_repeats(measured: Measured, repeats: Bools) -> Measured:
    """The metric of these repeats only."""
    return replace(
        measured,
        value=measured.value[:, :, repeats],
        without=measured.without[:, :, repeats],
        sides=None if measured.sides is None else measured.sides[:, :, repeats],
    )


def patient_df(measured: Measured, weights: Floats) -> Floats:
    """Degrees of freedom (questions,) of the patients' part of differences."""
    if measured.sides is None or measured.side_patients is None:
        n_patients = measured.without.shape[-1]
        enough = measured.scarcest >= ENOUGH_FOR_ALL
        return np.full(len(weights), (n_patients if enough else measured.scarcest) - 1.0)
    sides = np.tensordot(weights, measured.sides.mean(axis=2), 2)  # (questions, 2, patients)
    return welch_df(sides, measured.side_patients)
