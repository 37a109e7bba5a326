import json

import numpy as np
import polars as pl
import pytest

from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.errors import LeakError
from hounsfield.study import leakage
from hounsfield.study.plan import plan
from hounsfield.study.run import run

SPARK = {
    "spark": {
        "budget": {"steps": 1}, "batch_size": 4, "image_size": 64, "options": {"decoder_width": 32}
    }
}  # fmt: skip


@pytest.fixture
def copied(store, tmp_path):
    """A second archive that holds one of the first one's test images, under another name."""
    images = Store.open(store).read(np.array([18, 0, 1]))  # p03 is a test patient, p00 is not
    noise = np.random.default_rng(1).normal(40, 10, size=images[:1].shape).astype(np.int16)
    index = pl.DataFrame({"patient": ["x", "y", "y", "z"], "series": ["x", "y", "y", "z"]})
    return write_store(tmp_path / "more", np.concatenate([images, noise]), index).path


def stores(store, copied):
    return {"ct": str(store), "more": str(copied)}


def test_a_test_image_that_is_pretrained_on_is_refused_before_anything_is_written(
    study, store, copied, tmp_path
):
    planned = plan(study(stores=stores(store, copied), arms=["spark"], pretrain=SPARK))
    with pytest.raises(
        LeakError, match="equal slices of the test set of lesion in what is trained"
    ):
        run(planned, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_arm_that_never_sees_the_other_archive_does_not_leak(study, store, copied, tmp_path):
    planned = plan(study(stores=stores(store, copied), arms=["scratch"]))
    assert leakage.check(planned, tmp_path) == []


def test_told_to_report_the_study_goes_on_and_says_so(study, store, copied, tmp_path):
    planned = plan(
        study(stores=stores(store, copied), arms=["spark"], pretrain=SPARK, leaks="report",
              fractions=[1.0], repeats=1)
    )  # fmt: skip
    run(planned, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "study.json").read_text())
    (leak,) = facts["leaks"]
    assert (leak["kind"], leak["count"], leak["examples"]) == ("slice", 1, ["row 18 ~ row 0"])
    assert any("equal slices of the test set of lesion" in line for line in facts["warnings"])


def test_what_was_looked_at_once_is_not_looked_at_again(study, tmp_path, monkeypatch):
    planned = plan(study())
    leakage.keep(planned, tmp_path, leakage.check(planned, tmp_path))
    monkeypatch.setattr(leakage, "by_pair", None)  # would fail if it were called
    assert leakage.check(planned, tmp_path) == []
    other = plan(study(val_share=0.4))
    with pytest.raises(TypeError):
        leakage.check(other, tmp_path)


def test_what_leaks_in_several_folds_is_said_once_with_the_sum():
    def leak(kind, count, example):
        return {"kind": kind, "seen": "what is trained on of ct", "judged": "the test set of a",
                "count": count, "slices": count, "examples": [example]}  # fmt: skip

    found = [leak("slice", 1, "row 1 ~ row 2"), leak("patient", 1, "p"), leak("slice", 3, "row 5")]
    assert leakage.over_folds(found) == [
        "equal slices of the test set of a in what is trained on of ct: 4 (4 slices), "
        "for example row 1 ~ row 2, row 5",
        "patients of the test set of a in what is trained on of ct: 1 (1 slice), for example p",
    ]
