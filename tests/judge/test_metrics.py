"""Metrics against scikit-learn, and their delete-one values against brute-force deletion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from hounsfield.judge import metrics
from hounsfield.judge.metrics import Truth

INTERVAL_METRICS = [metrics.auc, metrics.balanced_accuracy]


def drawn(seed, *, patients=9, classes=2, models=(2, 3), ties=False, folds=1):
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(patients), rng.integers(2, 9, patients))
    labels = rng.integers(0, classes, len(of))
    labels[:classes] = np.arange(classes)
    logits = rng.normal(size=(*models, len(of), classes)) + 0.7 * np.eye(classes)[labels]
    if ties:
        logits = logits.round()
    return logits, Truth(labels, of, np.arange(patients) % folds, classes)


def drop_patient(logits, truth, patient):
    kept = truth.patients != patient
    left = truth.patients[kept]
    return logits[..., kept, :], Truth(
        truth.labels[kept],
        left - (left > patient),
        np.delete(truth.folds, patient),
        truth.classes,
    )


def macro_auc(logits, labels):
    odds = (logits - np.log(np.exp(logits).sum(-1, keepdims=True) - np.exp(logits))).round(9)
    kinds = range(logits.shape[-1])
    return np.mean([oracle.roc_auc_score(labels == k, odds[:, k]) for k in kinds])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3])
def test_auc_is_scikit_learns(classes, ties):
    logits, truth = drawn(1, classes=classes, ties=ties)
    ours = metrics.auc(logits, truth).value
    for place in np.ndindex(ours.shape):
        scores = logits[place]
        expected = (
            oracle.roc_auc_score(truth.labels, scores[:, 1] - scores[:, 0])
            if classes == 2
            else macro_auc(scores, truth.labels)
        )
        assert ours[place] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_balanced_accuracy_is_scikit_learns(classes):
    logits, truth = drawn(2, classes=classes)
    ours = metrics.balanced_accuracy(logits, truth).value
    for place in np.ndindex(ours.shape):
        chosen = logits[place].argmax(-1)
        assert ours[place] == pytest.approx(
            oracle.balanced_accuracy_score(truth.labels, chosen), abs=1e-12
        )


@pytest.mark.parametrize("metric", INTERVAL_METRICS)
@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_value_without_a_patient_is_the_value_after_deleting_it(metric, classes, folds):
    logits, truth = drawn(3, classes=classes, ties=True, folds=folds)
    whole = metric(logits, truth)
    for patient in range(len(truth.folds)):
        np.testing.assert_allclose(
            whole.without[..., patient],
            metric(*drop_patient(logits, truth, patient)).value,
            atol=1e-12,
        )


def test_win_margins_are_the_margins_of_the_win_matrix():
    logits, truth = drawn(4, ties=True, models=())
    scores, positive = logits[:, 1], truth.labels == 1
    matrix = np.zeros((9, 9))
    for i in np.flatnonzero(positive):
        for j in np.flatnonzero(~positive):
            won = 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
            matrix[truth.patients[i], truth.patients[j]] += won
    expected = np.stack([matrix.sum(1), matrix.sum(0), np.diag(matrix)])
    np.testing.assert_array_equal(metrics.win_margins(scores, positive, truth.patients), expected)


def test_scores_of_different_folds_are_never_compared():
    logits, truth = drawn(5, folds=3)
    shifted = logits.copy()
    shifted[..., 1] += 100.0 * truth.folds[truth.patients]
    np.testing.assert_allclose(
        metrics.auc(shifted, truth).value, metrics.auc(logits, truth).value, atol=1e-12
    )


@pytest.mark.parametrize("ties", [False, True])
def test_plain_metrics_are_scikit_learns(ties):
    logits, truth = drawn(6, models=(), ties=ties, patients=20)
    scores, chosen = logits[:, 1] - logits[:, 0], logits.argmax(-1)
    probability = 1 / (1 + np.exp(-scores))
    labels = truth.labels
    assert metrics.average_precision(logits, truth) == pytest.approx(
        oracle.average_precision_score(labels, scores)
    )
    assert metrics.f1(logits, truth) == pytest.approx(oracle.f1_score(labels, chosen))
    assert metrics.brier(logits, truth) == pytest.approx(
        oracle.brier_score_loss(labels, probability)
    )


def test_plain_metrics_of_many_classes_are_scikit_learns():
    logits, truth = drawn(7, models=(), classes=3, patients=20)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert metrics.f1(logits, truth) == pytest.approx(
        oracle.f1_score(truth.labels, logits.argmax(-1), average="macro")
    )
    assert metrics.average_precision(logits, truth) == pytest.approx(
        oracle.average_precision_score(np.eye(3)[truth.labels], probabilities, average="macro"),
    )
    assert metrics.brier(logits, truth) == pytest.approx(
        oracle.brier_score_loss(truth.labels, probabilities)
    )


def test_a_model_that_is_as_sure_as_it_is_right_is_calibrated():
    labels = np.array([1] * 8 + [0] * 2)
    truth = Truth(labels, np.arange(10), np.zeros(10, dtype=int), 2)
    sure = np.log(0.8 / 0.2)
    logits = np.stack([np.zeros(10), np.full(10, sure)], -1)
    assert metrics.calibration_error(logits, truth) == pytest.approx(0.0, abs=1e-12)
    logits[:, 1] = np.log(0.99 / 0.01)
    assert metrics.calibration_error(logits, truth) == pytest.approx(0.19, abs=1e-12)


def test_a_patient_is_its_mean_logit_and_positive_with_any_positive_slice():
    logits = np.array([[0.0, 1.0], [0.0, 3.0], [0.0, -1.0], [2.0, 0.0]])
    truth = Truth(np.array([0, 1, 0, 0]), np.array([0, 0, 1, 1]), np.zeros(2, dtype=int), 2)
    means, patients = metrics.by_patient(logits, truth)
    np.testing.assert_array_equal(means, [[0.0, 2.0], [1.0, -0.5]])
    np.testing.assert_array_equal(patients.labels, [1, 0])
    np.testing.assert_array_equal(patients.patients, [0, 1])


def test_patients_of_several_classes_have_no_patient_level():
    logits, truth = drawn(8, classes=3)
    assert metrics.by_patient(logits, truth) is None


def test_a_class_without_images_leaves_the_auc_undefined():
    truth = Truth(np.zeros(4, dtype=int), np.arange(4), np.zeros(4, dtype=int), 2)
    assert np.isnan(metrics.auc(np.zeros((4, 2)), truth).value)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
def test_renaming_patients_and_shuffling_images_change_nothing(seed, ties):
    logits, truth = drawn(seed, ties=ties)
    rng = np.random.default_rng(seed)
    names, order = rng.permutation(len(truth.folds)), rng.permutation(len(truth.labels))
    renamed = Truth(truth.labels[order], names[truth.patients[order]], truth.folds, 2)
    for metric in INTERVAL_METRICS:
        before, after = metric(logits, truth), metric(logits[..., order, :], renamed)
        np.testing.assert_array_equal(after.value, before.value)
        np.testing.assert_array_equal(after.without[..., names], before.without)
