"""The crossed jackknife t against its definition, DeLong's variance and its own symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hounsfield.judge import jackknife, metrics
from hounsfield.judge.metrics import Truth


def drawn(seed, *, repeats=5, patients=12, arms=2):
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(patients), rng.integers(3, 9, patients))
    labels = (rng.random(len(of)) < 0.4).astype(int)
    labels[:2] = 0, 1
    logits = np.zeros((arms, repeats, len(of), 2))
    person = rng.normal(size=patients)[of]
    logits[..., 1] = labels + person + rng.normal(size=(arms, repeats, len(of)))
    return logits, Truth(labels, of, np.zeros(patients, dtype=int), 2)


def difference(measured):
    theta = measured.value[0] - measured.value[1]
    without = measured.without[0] - measured.without[1]
    sides = (measured.sides[0] - measured.sides[1]).mean(axis=0)
    return jackknife.contrast(theta, without, jackknife.welch_df(sides, measured.side_patients))


def test_a_difference_is_the_definition_written_out():
    logits, truth = drawn(1)
    measured = metrics.auc(logits, truth)
    theta = measured.value[0] - measured.value[1]
    rows = measured.without[0] - measured.without[1]
    n_repeats, n_patients = rows.shape
    covariance = np.zeros((n_repeats, n_repeats))
    for r in range(n_repeats):
        for s in range(n_repeats):
            for p in range(n_patients):
                covariance[r, s] += (rows[r, p] - rows[r].mean()) * (rows[s, p] - rows[s].mean())
    covariance *= (n_patients - 1) / n_patients
    off = [covariance[r, s] for r in range(n_repeats) for s in range(n_repeats) if r != s]
    from_patients = max(np.mean(off), 0)
    from_repeats = theta.var(ddof=1) / n_repeats
    variance = from_repeats + from_patients
    df = variance**2 / (from_repeats**2 / (n_repeats - 1) + from_patients**2 / 7.0)
    half = stats.t.ppf(0.975, df) * np.sqrt(variance)

    ours = jackknife.contrast(theta, rows, 7.0)
    assert ours.df == pytest.approx(df)
    assert ours.low == pytest.approx(theta.mean() - half)
    assert ours.high == pytest.approx(theta.mean() + half)
    assert ours.p == pytest.approx(2 * stats.t.sf(abs(theta.mean()) / np.sqrt(variance), df))


def test_many_questions_at_once_are_the_questions_one_by_one():
    logits, truth = drawn(2, arms=4)
    measured = metrics.auc(logits, truth)
    together = jackknife.level(measured.value, measured.without, 4.0, floor=measured.floor)
    for arm in range(4):
        alone = jackknife.level(
            measured.value[arm], measured.without[arm], 4.0, floor=measured.floor
        )
        assert (together.low[arm], together.high[arm]) == (alone.low, alone.high)


# confidenceinterval 1.0.5, delong.delong_roc_variance, on these scores (it pins an old
# setuptools that torch refuses, so its answers are written down here)
@pytest.mark.parametrize(
    ("images", "area", "variance"),
    [(100, 0.684583306312561, 0.0031182560807753775), (400, 0.7426302433013916, 0.000616470560469)],
)
def test_with_one_image_a_patient_the_variance_is_delongs(images, area, variance):
    number = np.arange(images)
    labels = (number % 5 < 2).astype(int)
    scores = ((number * number * 7 + number * 37) % 211) / 211 + 0.35 * labels
    logits = np.stack([np.zeros(images), scores], axis=-1)[None]
    truth = Truth(labels, number, np.zeros(images, dtype=int), 2)
    measured = metrics.auc(logits, truth)
    ours = jackknife.components(measured.value, measured.without)
    assert measured.value[0] == pytest.approx(area, abs=1e-6)
    assert ours.shared == pytest.approx(variance, rel=2 / images)


def test_one_repeat_knows_the_patients_only():
    logits, truth = drawn(3, repeats=1)
    measured = metrics.auc(logits, truth)
    theta, rows = measured.value[0] - measured.value[1], measured.without[0] - measured.without[1]
    ours = jackknife.contrast(theta, rows, 6.0)
    n = rows.shape[-1]
    half = stats.t.ppf(0.975, 6.0) * np.sqrt((n - 1) / n * ((rows - rows.mean()) ** 2).sum())
    assert ours.df == pytest.approx(6.0)
    assert ours.high - ours.estimate == pytest.approx(half)


def test_no_variation_gives_no_interval():
    same = jackknife.contrast(np.zeros(3), np.zeros((3, 8)), 5.0)
    assert np.isnan([same.low, same.high, same.p]).all()
    perfect = jackknife.level(np.ones(3), np.ones((3, 8)), 5.0, floor=1e-3)
    assert np.isnan([perfect.low, perfect.high]).all()


def test_training_without_chance_leaves_the_patients_df():
    rows = np.tile(np.random.default_rng(0).normal(size=8), (3, 1))
    assert jackknife.contrast(np.full(3, 0.1), rows, 5.0).df == pytest.approx(5.0)


def test_patients_that_vary_against_each_other_leave_the_repeats_df():
    rows = np.random.default_rng(0).normal(size=8)
    ours = jackknife.contrast(np.array([0.1, 0.3]), np.stack([rows, -rows]) * 0.01, 5.0)
    assert ours.df == pytest.approx(1.0)


def test_welch_is_capped_at_the_patients():
    sides = np.full((2, 10), 0.1)
    assert jackknife.welch_df(sides, (10, 10)) == pytest.approx(9.0)
    assert jackknife.welch_df(np.zeros((2, 10)), (4, 7)) == pytest.approx(3.0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_swapping_the_arms_turns_the_interval_over(seed):
    logits, truth = drawn(seed)
    there = difference(metrics.auc(logits, truth))
    back = difference(metrics.auc(logits[::-1], truth))
    np.testing.assert_allclose(
        [back.estimate, back.low, back.high, back.p],
        [-there.estimate, -there.high, -there.low, there.p],
        atol=1e-12,
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_interval_excludes_zero_exactly_when_p_is_below_five_per_cent(seed):
    logits, truth = drawn(seed)
    ours = difference(metrics.auc(logits, truth))
    assert (ours.low > 0 or ours.high < 0) == (ours.p < 0.05)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_levels_interval_holds_its_estimate_and_stays_inside_the_scale(seed):
    logits, truth = drawn(seed)
    measured = metrics.auc(logits, truth)
    ours = jackknife.level(measured.value, measured.without, 3.0, floor=measured.floor)
    assert (ours.low >= 0).all()
    assert (ours.low <= ours.estimate).all()
    assert (ours.estimate <= ours.high).all()
    assert (ours.high <= 1).all()
