"""The questions that a study answers, each a linear contrast of its models' values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from hounsfield.judge.declared import CONTROLS
from hounsfield.judge.metrics import Floats

Kind = Literal["level", "difference", "drop", "drop_difference", "curve_area",
               "curve_area_difference", "labels_saved"]  # fmt: skip


@dataclass(frozen=True)
class Question:
    """Weights of the values of arms at fractions.

    Attributes:
        kind: What is asked.
        arm: Of whom.
        baseline: Against whom, for a difference between arms.
        fraction: At which fraction; None for the area under the label curve.
        weights: (arms, fractions).
    """

    kind: Kind
    arm: str
    baseline: str | None
    fraction: float | None
    weights: Floats

    @property
    def single(self) -> bool:
        """Whether the answer is a value of one arm in (0, 1), not a difference."""
        return self.kind in ("level", "curve_area")


def reach(kind: str) -> float:
    """The largest difference of this kind that there can be; beyond it nothing can be seen."""
    return 2.0 if kind == "drop_difference" else 1.0


def folds_felt(kind: str, folds: int) -> int:
    """How many folds an interval of this kind must allow for; 1 where none.

    What the patients of a fold do to the models that they train, they do with all and with few
    labels: it goes out of a drop, and of a difference of drops.
    """
    return 1 if kind in ("drop", "drop_difference") else folds


def questions(
    arms: Sequence[str], fractions: Sequence[float], *, pairs: Sequence[tuple[str, str]] = ()
) -> list[Question]:
    """Every question about these arms.

    Each two arms are compared once: as declared in `pairs` (arm, baseline), else the later arm
    against the earlier one, controls before all others.

    Args:
        arms: In the study's order.
        fractions: Falling; the first is the whole training set.
        pairs: Comparisons whose direction is declared.
    """
    alone = [question for arm in arms for question in _of_one(arm, arms, fractions)]
    of = {(one.kind, one.arm, one.fraction): one.weights for one in alone}
    return alone + [
        Question(_DIFFERENCE[kind], arm, baseline, fraction, of[kind, arm, fraction] - weights)
        for arm, baseline in _pairs(arms, pairs)
        for (kind, whose, fraction), weights in of.items()
        if whose == baseline
    ]


_DIFFERENCE: dict[Kind, Kind] = {
    "level": "difference",
    "drop": "drop_difference",
    "curve_area": "curve_area_difference",
}


def _of_one(arm: str, arms: Sequence[str], fractions: Sequence[float]) -> Iterator[Question]:
    row = np.eye(len(arms))[list(arms).index(arm)][:, None]  # (arms, 1)
    at = np.eye(len(fractions))
    for place, fraction in enumerate(fractions):
        yield Question("level", arm, None, fraction, row * at[place])
    for place, fraction in enumerate(fractions[1:], start=1):
        yield Question("drop", arm, None, fraction, row * (at[0] - at[place]))
    if len(fractions) > 1:
        yield Question("curve_area", arm, None, None, row * area_weights(fractions))


def area_weights(fractions: Sequence[float]) -> Floats:
    """Trapezoid weights (fractions,) on the logarithm of the fraction; they sum to 1.

    The area under the label curve is thus a mean of the metric, on the metric's own scale.
    """
    x = np.log(np.array(fractions, dtype=np.float64))
    gaps = np.abs(np.diff(x))
    weights = np.zeros(len(x))
    weights[:-1] += gaps / 2
    weights[1:] += gaps / 2
    return weights / weights.sum()


def _pairs(arms: Sequence[str], declared: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    there = [
        (arm, baseline)
        for arm, baseline in dict.fromkeys(declared)
        if arm != baseline and {arm, baseline} <= set(arms)
    ]
    taken = {frozenset(pair) for pair in there}
    order = sorted(arms, key=lambda arm: arm not in CONTROLS)
    rest = (
        (arm, baseline)
        for baseline, arm in combinations(order, 2)
        if frozenset((arm, baseline)) not in taken
    )
    return [*there, *rest]
