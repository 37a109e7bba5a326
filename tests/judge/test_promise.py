"""The engine keeps its promise on simulated studies; another engine agrees with it.

The full figures are `benchmarks/coverage.py`'s; this is the same in small, to notice a fault.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hounsfield.judge import metrics
from hounsfield.judge.jackknife import components, contrast, spread, welch_df
from hounsfield.seeding import stream

WORLD = Path(__file__).parents[2] / "benchmarks" / "simulated" / "fixed.py"
STUDIES = 100


@pytest.fixture(scope="module")
def world():
    spec = importlib.util.spec_from_file_location("simulated_fixed", WORLD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_equal_arms_are_rarely_called_different_and_often_by_the_t_test_over_repeats(world):
    ours = naive = 0
    for number in range(STUDIES):
        measured = metrics.auc(*world.study(stream(7, number), 16, 0.80))
        theta = measured.value[0, 1] - measured.value[1, 1]
        without = measured.without[0, 1] - measured.without[1, 1]
        sides = (measured.sides[0, 1] - measured.sides[1, 1]).mean(axis=0)
        ours += contrast(theta, without, welch_df(sides, measured.side_patients)).p < 0.05
        naive += stats.ttest_1samp(theta, 0.0).pvalue < 0.05
    assert ours <= 12  # 5 are due; 13 or more would come about once in 700 times
    assert naive >= 30


def test_few_repeats_that_agree_by_luck_do_not_make_equal_arms_different():
    """In 4,000 two-way layouts, whose repeats vary by patient alone; without its floor 13 %."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(4000, 1, 16)) + np.sqrt(2) * rng.normal(size=(4000, 3, 16))
    theta = cells.mean(axis=-1)
    without = (cells.sum(axis=-1, keepdims=True) - cells) / 15
    wrong = contrast(theta, without, 15.0).p < 0.05
    unrest = theta.var(axis=-1)
    assert wrong[unrest <= np.quantile(unrest, 0.25)].mean() < 0.05
    assert wrong.mean() < 0.05


def test_the_bootstrap_of_patients_and_repeats_sees_the_same_spread(world):
    """Win matrices weighted by how often each patient was drawn: a second road to the variance."""
    logits, truth = world.study(stream(8), 50, 0.80)
    scores = logits[0, 1, :, :, 1]  # (repeats, images)
    matrices = np.stack([win_matrix(one, truth) for one in scores])
    positives, negatives = truth.images_of[1], truth.images_of[0]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        weight = np.bincount(rng.integers(50, size=50), minlength=50)
        repeats = rng.integers(len(scores), size=len(scores))
        pairs = (weight @ positives) * (weight @ negatives)
        drawn.append((weight @ matrices[repeats].mean(axis=0) @ weight) / pairs)
    measured = metrics.auc(logits, truth)
    parts = components(measured.value[0, 1], measured.without[0, 1])
    ours = np.sqrt(sum(spread(parts, folds=1)))
    assert ours == pytest.approx(np.std(drawn), rel=0.15)


def win_matrix(scores, truth):
    """U[p, q]: pairs of a positive of p and a negative of q that are ranked rightly."""
    positive = truth.labels == 1
    won = np.sign(scores[positive][:, None] - scores[~positive][None, :]) / 2 + 0.5
    people = np.arange(len(truth.folds))
    rows = (truth.patients[positive][None, :] == people[:, None]).astype(float)
    columns = (truth.patients[~positive][:, None] == people[None, :]).astype(float)
    return rows @ won @ columns
