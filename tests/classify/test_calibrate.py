import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from hounsfield.classify.calibrate import Calibration, calibrate, log_loss, shares_of
from hounsfield.classify.units import Pool, Units, a_patient_once


def units(labels: np.ndarray, patients: list[str]) -> Units:
    return Units(tuple(np.array([k]) for k in range(len(labels))), labels, tuple(patients))


def many(count: int, *, scale: float, shares: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from `shares`, and logits of a balanced world that are `scale` times too big."""
    chance = np.random.default_rng(0)
    labels = (chance.random(count) < shares[1]).astype(np.int64)
    x = chance.normal(2.0 * labels - 1, 1.0)  # log-odds of x in a balanced world: 2 x
    return np.stack([np.zeros(count), scale * 2 * x], axis=1), labels


def test_the_true_temperature_is_found_whatever_the_shares() -> None:
    logits, labels = many(20_000, scale=3.0, shares=(0.9, 0.1))
    own = units(labels, [str(k) for k in range(len(labels))])
    found = calibrate(logits, own, shares_of(own, 2))
    assert found.temperature == pytest.approx(3.0, rel=0.05)
    assert found.shares[1] == pytest.approx(0.1, abs=0.01)


def test_calibrated_probabilities_are_those_of_a_fitted_logistic_curve() -> None:
    logits, labels = many(20_000, scale=3.0, shares=(0.8, 0.2))
    own = units(labels, [str(k) for k in range(len(labels))])
    found = calibrate(logits, own, shares_of(own, 2))(logits)[:, 1]
    margin = (logits[:, 1] - logits[:, 0])[:, None]
    oracle = LogisticRegression(C=1e6).fit(margin, labels).predict_proba(margin)[:, 1]
    assert np.abs(found - oracle).max() < 0.02


def test_probabilities_are_right_as_often_as_they_say() -> None:
    logits, labels = many(20_000, scale=5.0, shares=(0.7, 0.3))
    own = units(labels, [str(k) for k in range(len(labels))])
    said = calibrate(logits, own, shares_of(own, 2))(logits)[:, 1]
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        here = (said >= low) & (said < low + 0.2)
        assert labels[here].mean() == pytest.approx(said[here].mean(), abs=0.03)


def test_a_few_patients_that_are_parted_perfectly_do_not_make_it_certain() -> None:
    logits = np.array([[2.0, -2.0]] * 3 + [[-2.0, 2.0]] * 3)
    own = units(np.array([0, 0, 0, 1, 1, 1]), list("abcdef"))
    said = calibrate(logits, own, (0.5, 0.5))(logits)
    # Platt's targets for three patients a class: (3 + 1) / (3 + 2)
    np.testing.assert_allclose(said[0], [0.8, 0.2], atol=1e-3)


def test_a_patient_counts_once_however_many_slices() -> None:
    logits, labels = many(200, scale=2.0, shares=(0.5, 0.5))
    patients = [str(k) for k in range(200)]
    once = calibrate(logits, units(labels, patients), (0.5, 0.5))
    rows = np.repeat(np.arange(200), np.where(labels == 1, 7, 1))
    often = calibrate(logits[rows], units(labels[rows], [patients[k] for k in rows]), (0.5, 0.5))
    assert often.temperature == pytest.approx(once.temperature, rel=1e-3)


def test_shares_count_patients_and_none_is_zero() -> None:
    own = units(np.array([0, 0, 0, 1]), ["a", "a", "b", "b"])
    np.testing.assert_allclose(shares_of(own, 2), [(1.5 + 0.25) / 2.5, (0.5 + 0.25) / 2.5])
    assert min(shares_of(own, 3)) > 0


def test_the_loss_is_the_mean_over_patients() -> None:
    own = units(np.array([0, 1, 1]), ["a", "b", "b"])
    told = np.log(np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]))
    expected = -(np.log(0.9) + (np.log(0.5) + np.log(0.8)) / 2) / 2
    assert log_loss(told, own) == pytest.approx(expected)
    np.testing.assert_allclose(a_patient_once(["a", "b", "b"]), [1, 0.5, 0.5])


@pytest.mark.parametrize("how", ["mean_logit", "max_odds", "mean_probability"])
def test_pooling_in_parts_is_pooling_at_once(how: str) -> None:
    logits = np.random.default_rng(3).normal(size=(11, 2))
    expected = {
        "mean_logit": logits.mean(axis=0),
        "max_odds": max(logits, key=lambda pair: pair[1] - pair[0]),
        "mean_probability": np.log(np.exp(log_softmax(logits, axis=1)).mean(axis=0)),
    }[how]
    pool = Pool(how).add(logits[:1]).add(logits[1:8]).add(logits[8:])
    np.testing.assert_allclose(pool.logits(), expected)
    assert pool.slices == 11


def test_a_calibration_keeps_the_order_of_units() -> None:
    logits = np.random.default_rng(4).normal(size=(20, 2))
    said = Calibration(temperature=4.0, shares=(0.9, 0.1))(logits)[:, 1]
    assert (np.argsort(said) == np.argsort(logits[:, 1] - logits[:, 0])).all()
