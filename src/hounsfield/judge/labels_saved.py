"""How many labels pre-training saves: the fraction at which a baseline reaches what an arm has.

The baseline's curve is drawn straight between its rungs over the logarithm of the fraction. The
interval is the set of fractions at which "the baseline there equals the arm here" is not rejected;
each such question is a linear contrast, so the crossed jackknife answers it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from hounsfield.judge.jackknife import Intervals
from hounsfield.judge.metrics import Floats

STEPS = 24  # looked at from rung to rung


@dataclass(frozen=True)
class Path:
    """The contrast of an arm at a fraction with the baseline all along its curve.

    Attributes:
        fractions: Of the baseline, rising (places,).
        weights: (places, arms, fractions).
    """

    fractions: Floats
    weights: Floats


@dataclass(frozen=True)
class Reached:
    """Where the baseline reaches the arm.

    Attributes:
        fraction: None where it is not on the ladder.
        low, high: The interval; None on the side that leaves the ladder.
        reason: Why a number is missing.
    """

    fraction: float | None
    low: float | None
    high: float | None
    reason: str


def path(arm: int, baseline: int, at: int, fractions: Sequence[float], n_arms: int) -> Path:
    """The contrasts to ask; `fractions` fall, at least two."""
    rungs = np.log(np.array(fractions, dtype=np.float64)[::-1])
    places = np.unique(np.concatenate([
        np.linspace(low, high, STEPS + 1) for low, high in pairwise(rungs)
    ]))  # fmt: skip
    curve = np.stack([np.interp(places, rungs, one) for one in np.eye(len(rungs))], axis=-1)
    weights = np.zeros((len(places), n_arms, len(fractions)))
    weights[:, baseline] -= curve[:, ::-1]
    weights[:, arm, at] += 1
    return Path(np.exp(places), weights)


def crossing(along: Path, difference: Floats) -> Reached:
    """Where the difference (places,) first falls to 0, on the logarithm of the fraction."""
    behind = difference <= 0  # the baseline is level with the arm at this fraction, or above
    if not behind.any():
        return Reached(None, None, None, "the baseline does not reach it with all labels")
    if behind[0]:
        return Reached(None, None, None, "the baseline is there with the fewest labels already")
    after = int(np.argmax(behind))
    before = after - 1
    share = difference[before] / (difference[before] - difference[after])
    x = np.log(along.fractions)
    return Reached(float(np.exp(x[before] + share * (x[after] - x[before]))), None, None, "")


def reached(along: Path, found: Intervals) -> Reached:
    """The crossing, with the run of fractions at which equality is not rejected.

    The run is widened by one place on either side, so it is never narrower than it should be.
    """
    point = crossing(along, found.estimate)
    in_doubt = np.flatnonzero(~((found.low > 0) | (found.high < 0)))
    if point.fraction is not None:
        after = int(np.searchsorted(along.fractions, point.fraction))
        in_doubt = np.union1d(in_doubt, [after - 1, after])
    if not len(in_doubt):
        return point
    if np.diff(in_doubt).max(initial=1) > 1:
        return replace(point, reason=point.reason or "the curves cross more than once")
    first, last = int(in_doubt[0]) - 1, int(in_doubt[-1]) + 1
    low = None if first < 0 else float(along.fractions[first])
    high = None if last == len(along.fractions) else float(along.fractions[last])
    beyond = {
        (True, True): "no fraction of the ladder can be told from it",
        (True, False): "it may lie below the ladder",
        (False, True): "it may lie beyond all labels",
        (False, False): "",
    }[low is None, high is None]
    return Reached(point.fraction, low, high, point.reason or beyond)
