"""Planning: power against simulation, the smallest effect against power itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hounsfield.judge import power
from hounsfield.judge.jackknife import Components
from hounsfield.judge.power import Pilot

PILOT = Pilot(np.array(0.055), np.array(0.0005), np.array(0.017), np.array(9.0))


def test_a_pilot_is_the_components_of_one_patient_and_one_repeat():
    parts = Components(np.array(0.004), np.array(0.003), np.array(0.005), 5, 20)
    one = power.pilot(parts, 9.0)
    assert one.patients == pytest.approx(20 * 0.003)
    assert one.both == pytest.approx(20 * 0.002)
    assert one.repeats == pytest.approx(0.004 - 0.002)


def test_without_repeats_in_sight_the_power_is_the_t_tests():
    alone = Pilot(np.array(0.05), np.array(0.0), np.array(0.0), np.array(9.0))
    ours = power.power(alone, 0.1, patients=30, repeats=5)
    shift = 0.1 / np.sqrt(0.05 / 30)
    critical = stats.t.ppf(0.975, 29)
    t = stats.nct(29, shift)
    assert ours == pytest.approx(t.sf(critical) + t.cdf(-critical), abs=1e-3)


@pytest.mark.parametrize("repeats", [2, 3, 10])
def test_power_is_the_non_central_ts(repeats):
    only = Pilot(np.array(0.0), np.array(0.004), np.array(0.0), np.array(9.0))
    for effect in (0.0, 0.05, 0.15):
        t = stats.nct(repeats - 1, effect / np.sqrt(0.004 / repeats))
        critical = stats.t.ppf(0.975, repeats - 1)
        ours = power.power(only, effect, patients=20, repeats=repeats)
        assert ours == pytest.approx(t.sf(critical) + t.cdf(-critical), abs=1e-3)


def test_power_is_what_a_simulated_two_way_layout_shows():
    rng = np.random.default_rng(0)
    studies, patients, repeats, effect = 4000, 40, 5, 0.11
    spread = [np.sqrt(float(part)) for part in (PILOT.patients, PILOT.repeats, PILOT.both)]
    cells = (
        effect
        + spread[0] * rng.normal(size=(studies, 1, patients))
        + spread[1] * rng.normal(size=(studies, repeats, 1))
        + spread[2] * rng.normal(size=(studies, repeats, patients))
    )
    means = cells.mean(axis=(1, 2))
    rows, columns = cells.mean(axis=2), cells.mean(axis=1)
    both = cells - rows[:, :, None] - columns[:, None, :] + means[:, None, None]
    crossed = (both**2).sum(axis=(1, 2)) / ((repeats - 1) * (patients - 1))
    from_repeats = rows.var(axis=1, ddof=1) / repeats
    from_patients = np.maximum(columns.var(axis=1, ddof=1) - crossed / repeats, 0) / patients
    variance = from_repeats + from_patients
    df = variance**2 / (from_repeats**2 / (repeats - 1) + from_patients**2 / (patients - 1))
    found = np.abs(means) / np.sqrt(variance) > stats.t.ppf(0.975, df)
    ours = power.power(PILOT, effect, patients=patients, repeats=repeats)
    assert ours == pytest.approx(found.mean(), abs=0.03)


@settings(max_examples=25, deadline=None)
@given(patients=st.integers(8, 400), repeats=st.integers(1, 20), alpha=st.floats(0.005, 0.1))
def test_the_smallest_effect_is_found_four_times_in_five(patients, repeats, alpha):
    plan = {"patients": patients, "repeats": repeats, "alpha": alpha}
    effect = power.smallest_effect(PILOT, **plan)
    assert power.power(PILOT, effect, **plan) == pytest.approx(0.8, abs=2e-4)


def test_the_range_holds_the_smallest_effect_and_narrows_with_the_pilots_patients():
    plan = {"patients": 50, "repeats": 5}
    low, high = power.smallest_effect_range(PILOT, **plan)
    assert low < power.smallest_effect(PILOT, **plan) < high
    larger = Pilot(PILOT.patients, PILOT.repeats, PILOT.both, np.array(60.0))
    nearer = power.smallest_effect_range(larger, **plan)
    assert low < nearer[0] < nearer[1] < high


@pytest.mark.parametrize("repeats", [3, 5, 10])
def test_the_range_holds_the_smallest_effect_where_repeats_vary_most(repeats):
    restless = Pilot(np.array(0.1), np.array(0.05), np.array(0.05), np.array(6.0))
    plan = {"patients": 14, "repeats": repeats}
    low, high = power.smallest_effect_range(restless, **plan)
    assert low <= power.smallest_effect(restless, **plan) <= high


def test_the_patients_needed_are_just_enough():
    needed = power.patients_needed(PILOT, 0.08, repeats=5)
    assert power.smallest_effect(PILOT, patients=needed, repeats=5) <= 0.08
    assert power.smallest_effect(PILOT, patients=needed - 1, repeats=5) > 0.08


def test_repeats_that_vary_too_much_make_no_number_of_patients_enough():
    restless = Pilot(np.array(0.05), np.array(0.05), np.array(0.0), np.array(9.0))
    assert power.patients_needed(restless, 0.05, repeats=3) is None


def test_endless_repeats_cannot_get_below_the_floor():
    floor = power.floor_of_repeats(PILOT, patients=50)
    assert floor < power.smallest_effect(PILOT, patients=50, repeats=1000)
    assert floor == pytest.approx(power.smallest_effect(PILOT, patients=50, repeats=1000), rel=0.01)


def test_repeats_cannot_average_out_what_folds_share():
    folded = Pilot(PILOT.patients, PILOT.repeats, PILOT.both, PILOT.patient_df, folds=5)
    error = np.sqrt(0.25 * (0.0005 + 0.017 / 50) + 1.25 * 0.055 / 50)
    assert power.floor_of_repeats(folded, patients=50) > 2.7 * error
    assert power.floor_of_repeats(PILOT, patients=50) < 2.7 * error


def test_without_variance_there_is_no_smallest_effect():
    nothing = Pilot(np.array(0.0), np.array(0.0), np.array(0.0), np.array(5.0))
    assert np.isnan(power.smallest_effect(nothing, patients=20, repeats=5))
