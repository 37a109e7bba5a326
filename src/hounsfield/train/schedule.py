"""How long to train and how fast: durations become steps here and nowhere else."""

import math
from dataclasses import dataclass
from typing import Self

from pydantic import PositiveFloat, PositiveInt, model_validator

from hounsfield.config import Config


class Budget(Config):
    """How long to train, said in exactly one way.

    Attributes:
        epochs: Passes over the images.
        steps: Updates of the weights.
        hours: Time on this machine, pauses between two starts not counted. How many steps that
            makes depends on the machine, so only the other two give the same weights twice.
    """

    epochs: PositiveFloat | None = None
    steps: PositiveInt | None = None
    hours: PositiveFloat | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.epochs, self.steps, self.hours)) != 1:
            raise ValueError("give exactly one of epochs, steps, hours")
        return self


@dataclass(frozen=True)
class Schedule:
    """A budget in steps or in seconds, and the learning rate's way through it.

    The rate climbs linearly from `start_factor` to 1 of its peak over the share `warm_up` of the
    budget, then falls on a half cosine to `final_factor` (Loshchilov and Hutter, "SGDR",
    arXiv 1608.03983, without restarts).
    """

    steps: int | None = None
    seconds: float | None = None
    warm_up: float = 0.0
    start_factor: float = 0.0
    final_factor: float = 0.0

    def progress(self, step: int, seconds: float) -> float:
        """The share of the budget, 0 to 1, spent after `step` steps and `seconds` seconds."""
        if self.steps is not None:
            return min(step / self.steps, 1.0)
        if self.seconds is not None:
            return min(seconds / self.seconds, 1.0)
        raise ValueError("a schedule needs steps or seconds")

    def factor(self, progress: float) -> float:
        """The learning rate at `progress`, as a factor of its peak."""
        if progress < self.warm_up:
            return self.start_factor + (1 - self.start_factor) * progress / self.warm_up
        left = (progress - self.warm_up) / (1 - self.warm_up) if self.warm_up < 1 else 1.0
        return half_cosine(1.0, self.final_factor, left)


def half_cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` on half a cosine as `progress` goes from 0 to 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def steps_of(budget: Budget, *, steps_per_epoch: float) -> int | None:
    """The steps that a budget buys, at least one; None for a budget in hours."""
    if budget.hours is not None:
        return None
    if budget.steps is not None:
        return budget.steps
    return max(1, round((budget.epochs or 0) * steps_per_epoch))
