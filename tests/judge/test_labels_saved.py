"""The fraction at which the baseline reaches an arm, on curves that can be drawn by hand."""

import numpy as np
import pytest

from hounsfield.judge.jackknife import Intervals
from hounsfield.judge.labels_saved import crossing, path, reached

FRACTIONS = (1.0, 0.25, 0.0625)


def along(values, *, at=2):
    """The path and the difference on it; `values` are (arm, baseline) over FRACTIONS."""
    found = path(0, 1, at, FRACTIONS, n_arms=2)
    return found, np.tensordot(found.weights, np.array(values), 2)


def intervals(difference, half):
    nothing = np.full_like(difference, np.nan)
    return Intervals(difference, difference - half, difference + half, nothing, nothing)


def test_half_way_between_two_rungs_is_half_way_on_the_logarithm():
    on, difference = along([[0.9, 0.9, 0.75], [0.9, 0.8, 0.7]])
    assert crossing(on, difference).fraction == pytest.approx(np.sqrt(0.25 * 0.0625))


def test_on_a_rung_it_is_the_rung():
    on, difference = along([[0.9, 0.9, 0.8], [0.9, 0.8, 0.7]])
    assert crossing(on, difference).fraction == pytest.approx(0.25)


def test_an_arm_that_is_out_of_reach_says_so():
    on, difference = along([[0.95, 0.95, 0.95], [0.9, 0.8, 0.7]])
    found = crossing(on, difference)
    assert found.fraction is None
    assert found.reason == "the baseline does not reach it with all labels"


def test_an_arm_below_the_whole_curve_saves_nothing():
    on, difference = along([[0.6, 0.6, 0.6], [0.9, 0.8, 0.7]])
    found = crossing(on, difference)
    assert found.fraction is None
    assert found.reason == "the baseline is there with the fewest labels already"


def test_the_interval_is_where_equality_is_not_rejected():
    on, difference = along([[0.9, 0.9, 0.8], [0.9, 0.8, 0.7]])
    found = reached(on, intervals(difference, 0.05))
    assert found.low == pytest.approx(np.sqrt(0.25 * 0.0625), rel=0.1)
    assert found.high == pytest.approx(np.sqrt(0.25), rel=0.1)
    assert found.low <= found.fraction <= found.high


def test_an_interval_that_leaves_the_ladder_has_no_limit_there_and_says_why():
    on, difference = along([[0.9, 0.9, 0.8], [0.9, 0.8, 0.7]])
    found = reached(on, intervals(difference, 0.2))
    assert (found.low, found.high) == (None, None)
    assert found.reason == "no fraction of the ladder can be told from it"
    upper = reached(*_reaching_past_the_top())
    assert upper.low is not None
    assert upper.high is None
    assert upper.reason == "it may lie beyond all labels"


def _reaching_past_the_top():
    on, difference = along([[0.9, 0.9, 0.88], [0.9, 0.8, 0.7]])
    return on, intervals(difference, 0.05)


def test_curves_that_cross_twice_have_no_interval():
    on, difference = along([[0.9, 0.9, 0.75], [0.7, 0.85, 0.7]])
    found = reached(on, intervals(difference, 0.01))
    assert (found.low, found.high) == (None, None)
    assert found.reason == "the curves cross more than once"
