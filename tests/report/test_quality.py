import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from sklearn.metrics import auc, confusion_matrix, roc_auc_score

from hounsfield.report.quality import quality, recalibration
from hounsfield.seeding import stream


def scores(classes: int, images: int = 400, *, ties: bool = False) -> pl.DataFrame:
    chance = stream(5, classes)
    labels = chance.integers(classes, size=images)
    logits = chance.normal(size=(images, classes)) + 1.2 * np.eye(classes)[labels]
    logits = np.round(logits, 0) if ties else logits
    columns = {f"logit_{k}": logits[:, k] for k in range(classes)}
    return pl.DataFrame({"split": ["test"] * images, "label": labels, **columns})


def test_the_area_under_the_drawn_roc_is_the_auc() -> None:
    for ties in (False, True):
        table = scores(2, ties=ties)
        found = quality(table)
        assert found is not None
        x, y = zip(*found.roc, strict=True)
        logits = table.select("^logit_.*$").to_numpy()
        exact = roc_auc_score(table["label"], logits[:, 1] - logits[:, 0])
        assert abs(auc(x, y) - exact) < 0.005


def test_every_image_stands_once_in_the_confusion_matrix_and_once_in_a_bin() -> None:
    table = scores(4)
    found = quality(table)
    assert found is not None
    predicted = table.select("^logit_.*$").to_numpy().argmax(axis=1)
    assert (found.confusion == confusion_matrix(table["label"], predicted)).all()
    assert sum(images for _, _, images in found.calibration) == len(table)


def test_calibrated_scores_lie_on_the_diagonal() -> None:
    chance = stream(6, "calibrated")
    probability = chance.uniform(0.02, 0.98, size=40_000)
    labels = (chance.uniform(size=probability.size) < probability).astype(np.int64)
    logit = np.log(probability / (1 - probability))
    table = pl.DataFrame(
        {
            "split": ["test"] * len(labels),
            "label": labels,
            "logit_0": np.zeros(len(labels)),
            "logit_1": logit,
        }
    )
    found = quality(table)
    assert found is not None
    for said, happened, images in found.calibration:
        assert images > 1000
        assert abs(said - happened) < 0.03


def test_the_recalibration_is_the_likeliest_line_over_the_log_odds() -> None:
    chance = stream(7, "recalibrated")
    log_odds = chance.normal(size=4000) * 2
    truth = chance.uniform(size=log_odds.size) < expit(0.6 * log_odds - 0.5)

    def unlikely(slope: float, intercept: float) -> float:
        return -np.sum(log_expit(np.where(truth, 1, -1) * (slope * log_odds + intercept)))

    likeliest = minimize(lambda line: unlikely(*line), [1.0, 0.0], method="Nelder-Mead").x
    shifted = minimize(lambda line: unlikely(1.0, line[0]), [0.0], method="Nelder-Mead").x
    found = recalibration(truth, log_odds)
    np.testing.assert_allclose(found, [likeliest[0], shifted[0]], atol=1e-3)
    assert abs(likeliest[0] - 0.6) < 0.1


def test_log_odds_that_hardly_differ_are_recalibrated_without_a_warning() -> None:
    chance = np.random.default_rng(0)
    log_odds = chance.normal(size=200)
    truth = chance.random(200) < expit(log_odds)
    slope, intercept = recalibration(truth, log_odds) or (0.0, 0.0)
    narrow, _ = recalibration(truth, 30 + 1e-6 * log_odds) or (0.0, 0.0)
    assert narrow == pytest.approx(1e6 * slope, rel=1e-4)
    assert intercept == pytest.approx(0.0, abs=0.5)


def test_classes_that_a_threshold_parts_have_no_slope() -> None:
    truth = np.array([False, False, True, True])
    for log_odds in ([-3.0, -1.0, 1.0, 2.0], [3.0, 1.0, 1.0, -2.0]):
        assert recalibration(truth, np.array(log_odds)) is None
    assert recalibration(truth, np.array([-3.0, 80.0, 1.0, 2.0])) is not None


def test_no_curve_is_drawn_where_a_class_is_missing() -> None:
    assert quality(scores(2).filter(pl.col("label") == 1)) is None
