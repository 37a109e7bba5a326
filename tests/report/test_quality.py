import numpy as np
import polars as pl
from sklearn.metrics import auc, confusion_matrix, roc_auc_score

from hounsfield.report.quality import quality
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


def test_no_curve_is_drawn_where_a_class_is_missing() -> None:
    assert quality(scores(2).filter(pl.col("label") == 1)) is None
