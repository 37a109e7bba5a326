"""The crossed jackknife t against its definition, DeLong's variance and its own symmetries."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit

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


def slow_parts(theta, rows, folds):
    """The variance from repeats and from patients, in loops; folds as in the module's text."""
    repeats, patients = len(rows), len(rows[0])
    covariance = [
        [
            (patients - 1)
            / patients
            * sum((a - np.mean(one)) * (b - np.mean(two)) for a, b in zip(one, two, strict=True))
            for two in rows
        ]
        for one in rows
    ]
    off = [covariance[r][s] for r in range(repeats) for s in range(repeats) if r != s]
    own, shared = np.mean([covariance[r][r] for r in range(repeats)]), max(np.mean(off), 0)
    between = max(np.var(theta, ddof=1), own - shared)
    whole = np.mean(covariance)
    if folds == 1:
        return between / repeats, shared, whole
    tests, trains = 1 / folds, 1 - 1 / folds  # shares of the patients
    return between * (1 / repeats + tests / trains), shared * (1 + tests / trains), whole


def slow_half(of_repeats, of_patients, repeats, patient_df):
    variance = of_repeats + of_patients
    df = variance**2 / (of_repeats**2 / (repeats - 1) + of_patients**2 / patient_df)
    return stats.t.ppf(0.975, df) * np.sqrt(variance), df


def slow_auc(logits, truth, keep):
    """Pairs of a positive and a negative image of one fold, counted one by one."""
    won = pairs = 0
    fold = truth.folds[truth.patients]
    scores = logits[:, 1] - logits[:, 0]
    for i in np.flatnonzero(keep & (truth.labels == 1)):
        for j in np.flatnonzero(keep & (truth.labels == 0) & (fold == fold[i])):
            pairs += 1
            won += 1 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0
    return won / pairs


def slow_sides(logits, truth):
    """Each patient's share of an AUC's error, as the owner of positives and of negatives."""
    people = range(len(truth.folds))
    area = slow_auc(logits, truth, np.full(len(logits), fill_value=True))
    scores, fold = logits[:, 1] - logits[:, 0], truth.folds[truth.patients]
    sides, pairs = np.zeros((2, len(people))), 0
    for i in np.flatnonzero(truth.labels == 1):
        for j in np.flatnonzero((truth.labels == 0) & (fold == fold[i])):
            pairs += 1
            over = (np.sign(scores[i] - scores[j]) + 1) / 2 - area
            sides[0, truth.patients[i]] += over
            sides[1, truth.patients[j]] += over
    return sides / pairs


@pytest.mark.parametrize("folds", [1, 4])
def test_from_scores_to_intervals_nothing_is_taken_for_granted(folds):
    """Differences and levels from the definitions, by counting pairs and deleting patients."""
    logits, truth = drawn(11)
    truth = replace(truth, folds=np.arange(12) % folds)
    of = truth.patients
    everybody = np.full(len(of), fill_value=True)
    theta = [[slow_auc(one, truth, everybody) for one in arm] for arm in logits]
    rows = np.array(
        [[[slow_auc(one, truth, of != p) for p in range(12)] for one in arm] for arm in logits]
    )
    measured = metrics.auc(logits, truth)

    gaps = np.subtract(*theta)
    spread = slow_parts(gaps, rows[0] - rows[1], folds)
    sides = np.mean(
        [slow_sides(a, truth) - slow_sides(b, truth) for a, b in zip(*logits, strict=True)], axis=0
    )
    counts = [len(set(of[truth.labels == label])) for label in (1, 0)]
    parts = [n / (n - 1) * sum(side**2) for n, side in zip(counts, sides, strict=True)]
    welch = sum(parts) ** 2 / sum(v**2 / (n - 1) for v, n in zip(parts, counts, strict=True))
    half, df = slow_half(*spread[:2], 5, min(welch, 11))
    ours = jackknife.contrast(
        measured.value[0] - measured.value[1],
        measured.without[0] - measured.without[1],
        jackknife.welch_df((measured.sides[0] - measured.sides[1]).mean(0), measured.side_patients),
        folds=folds,
    )
    p = 2 * stats.t.sf(abs(np.mean(gaps)) / np.sqrt(spread[0] + spread[1]), df)
    expected = np.mean(gaps) - half, np.mean(gaps) + half, df, p
    assert (ours.low, ours.high, ours.df, ours.p) == pytest.approx(expected, rel=1e-9)

    of_repeats, of_patients, whole = slow_parts(theta[0], rows[0], folds)
    middle = np.mean(theta[0])
    bent = logit(rows[0].mean(axis=0))
    stretch = 11 / 12 * sum((bent - bent.mean()) ** 2) / whole
    half, df = slow_half(
        of_repeats / (middle * (1 - middle)) ** 2, stretch * of_patients, 5, min(counts) - 1
    )
    ours = jackknife.level(
        measured.value[0], measured.without[0], measured.scarcest - 1.0,
        floor=measured.floor, folds=folds,
    )  # fmt: skip
    expected = expit(logit(middle) - half), expit(logit(middle) + half), df
    assert (ours.low, ours.high, ours.df) == pytest.approx(expected, rel=1e-9)


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


def test_repeats_vary_at_least_by_the_mean_square_of_patients_by_repeats():
    rng = np.random.default_rng(0)
    repeats, patients = 3, 20
    cells = 2 * rng.normal(size=patients) + rng.normal(size=(repeats, patients))
    cells -= cells.mean(axis=1, keepdims=True)  # by luck all repeats come out alike
    both = cells - cells.mean(axis=0)  # what rows and columns leave in a two-way table
    square = (both**2).sum() / ((repeats - 1) * (patients - 1))
    without = (cells.sum(axis=1, keepdims=True) - cells) / (patients - 1)
    parts = jackknife.components(cells.mean(axis=1), without)
    assert parts.repeats == pytest.approx(0)
    assert jackknife.spread(parts, folds=1)[0] == pytest.approx(square / patients / repeats)


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
