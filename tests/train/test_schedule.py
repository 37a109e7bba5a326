import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hounsfield.config import parse
from hounsfield.errors import ConfigError
from hounsfield.train.schedule import Budget, Schedule, steps_of


def sparks_rates(step, *, warm, last):
    """Peak-relative rate as SparK's code computes it."""
    if step < warm:
        return 0.005 + 0.995 * step / warm
    ratio = (step - warm) / (last - 1 - warm)
    return 0.001 + 0.999 * (0.5 + 0.5 * math.cos(math.pi * ratio))


def test_the_rate_is_sparks_to_one_step_in_a_thousand():
    schedule = Schedule(steps=1000, warm_up=0.1, start_factor=0.005, final_factor=0.001)
    for step in range(1000):
        ours = schedule.factor(schedule.progress(step, seconds=0.0))
        assert ours == pytest.approx(sparks_rates(step, warm=100, last=1000), abs=2e-3)


@given(st.floats(0, 0.99), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_rate_stays_between_its_ends_and_its_peak(warm_up, start, final, progress):
    schedule = Schedule(steps=10, warm_up=warm_up, start_factor=start, final_factor=final)
    assert min(start, final) - 1e-9 <= schedule.factor(progress) <= 1 + 1e-9
    assert schedule.factor(1.0) == pytest.approx(final)
    assert schedule.factor(warm_up) == pytest.approx(1.0)


def test_hours_are_progress_whatever_the_steps():
    schedule = Schedule(seconds=3600.0)
    assert schedule.progress(10**6, seconds=900.0) == 0.25
    assert schedule.progress(1, seconds=7200.0) == 1.0


@pytest.mark.parametrize(
    ("budget", "steps"),
    [({"epochs": 3}, 75), ({"epochs": 0.001}, 1), ({"steps": 7}, 7), ({"hours": 2}, None)],
)
def test_budgets_become_steps(budget, steps):
    assert steps_of(Budget(**budget), steps_per_epoch=25.0) == steps


@pytest.mark.parametrize("budget", [{}, {"epochs": 1, "hours": 1}])
def test_a_budget_is_said_in_exactly_one_way(budget):
    with pytest.raises(ConfigError, match="give exactly one of epochs, steps, hours"):
        parse(Budget, budget, where="test")
