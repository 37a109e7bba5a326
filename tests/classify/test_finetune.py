import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file
from sklearn.metrics import log_loss, roc_auc_score

from hounsfield.classify.finetune import FinetuneConfig, Finetuned, finetune
from hounsfield.classify.kept import FILE, load
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.errors import LabelError, OutputError, TrainingError, WeightsError
from hounsfield.models.backbone import create
from hounsfield.models.pretrained import load_into
from hounsfield.study.classifier import Keeper
from hounsfield.study.config import Budget
from hounsfield.study.scores import Score
from hounsfield.train.training import Training

Make = Callable[..., FinetuneConfig]


def test_a_lesion_that_can_be_seen_is_learnt(classifier: Finetuned) -> None:
    metrics = classifier.kept.facts.metrics["test"]
    assert metrics["slice"]["auc"] > 0.9
    assert metrics["slice"]["n_patients"] == 4


def test_test_patients_are_neither_trained_on_nor_chosen_by(classifier: Finetuned) -> None:
    scores = pl.read_parquet(classifier.folder / "scores.parquet")
    test = set(scores.filter(split="test")["patient"])
    val = set(scores.filter(split="val")["patient"])
    assert test == {"p00", "p01", "p03", "p04"}
    assert classifier.kept.facts.patients == {"train": 10, "val": 10, "test": 4}
    assert not test & val


def test_the_kept_classifier_gives_the_logits_that_were_scored(
    classifier: Finetuned, store: Path
) -> None:
    scores = pl.read_parquet(classifier.folder / "scores.parquet").filter(split="test")
    opened = Store.open(store)
    rows = scores["slice"].to_numpy()
    logits = load(classifier.folder).logits(opened.read(rows), opened.is_hu[rows])
    expected = scores.select("logit_0", "logit_1").to_numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_metrics_are_scikit_learns(classifier: Finetuned) -> None:
    kept = classifier.kept
    scores = pl.read_parquet(classifier.folder / "scores.parquet").filter(split="val")
    logits = scores.select("logit_0", "logit_1").to_numpy().astype(np.float64)
    labels = scores["label"].to_numpy()
    told = kept.facts.metrics["val"]["slice"]
    assert told["auc"] == pytest.approx(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    said = kept.probabilities(logits, "slice")
    assert told["log_loss"] == pytest.approx(log_loss(labels, said))  # all have as many slices


def test_calibration_knows_how_rare_the_lesion_is(classifier: Finetuned) -> None:
    calibration = classifier.kept.facts.calibration
    assert set(calibration) == {"slice", "patient"}
    assert calibration["slice"].shares[1] < 0.25  # a slice in six; half of every batch
    assert 0.25 < calibration["patient"].shares[1] < 0.4  # a patient in three
    scores = pl.read_parquet(classifier.folder / "scores.parquet").filter(split="val")
    logits = scores.select("logit_0", "logit_1").to_numpy().astype(np.float64)
    said = classifier.kept.probabilities(logits, "slice")[:, 1]
    assert said.mean() == pytest.approx(scores["label"].mean(), abs=0.1)


def test_it_knows_what_it_was_trained_with(classifier: Finetuned, store: Path) -> None:
    again = load(classifier.folder)
    facts = again.facts
    assert facts == classifier.kept.facts
    assert (facts.slice_size, facts.grid_mm, facts.spacing_mm) == (32, None, (1.5, 1.5))
    assert (facts.units, facts.classes) == (("hu",), ("0", "1"))
    assert facts.stores == (Store.open(store).hash,)
    assert (again.encoder.window_hu, again.encoder.image_size) == ((-100, 400), 32)
    told = json.loads((classifier.folder / "config.json").read_text())
    assert told["config"]["budget"]["steps"] == 60


def test_equal_settings_give_equal_classifiers(
    classifier: Finetuned, config: Make, tmp_path: Path
) -> None:
    again = finetune(config(), tmp_path / "again")
    first, second = (load_file(run.folder / FILE) for run in (classifier, again))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_it_starts_from_a_run_and_says_so(
    classifier: Finetuned, config: Make, tmp_path: Path
) -> None:
    weights = str(classifier.folder)
    budget = Budget(steps=30, batch=16, lr=1e-3)
    made = config(weights=weights, task="kind", backbone=None, window=None, budget=budget)
    done = finetune(made, tmp_path / "out")
    facts = done.kept.facts
    assert done.kept.encoder.window_hu == (-100, 400)  # the run's own
    assert facts.weights["matched"] == len(create("resnet10_tiny").net.state_dict())
    assert facts.weights["source"] == FILE  # no folder of this machine
    assert str(tmp_path.parent) not in facts.model_dump_json()
    assert facts.classes == ("sick", "well")


def test_a_classifiers_backbone_can_be_used_alone(classifier: Finetuned) -> None:
    backbone = create("resnet10_tiny")
    card = load_into(backbone, classifier.folder)
    assert card.prefix == "backbone."
    ours, theirs = backbone.net.state_dict(), classifier.kept.encoder.backbone.net.state_dict()
    assert all(ours[name].equal(theirs[name]) for name in ours)


def test_too_few_validation_patients_are_said_and_leave_it_uncalibrated(
    config: Make, tmp_path: Path
) -> None:
    done = finetune(config(val_share=0.1), tmp_path / "out")
    assert done.kept.facts.calibration == {}
    assert done.notes[0].startswith("probabilities by slice are not calibrated: a class has ")


def test_a_training_that_learns_nothing_is_not_kept(config: Make, tmp_path: Path) -> None:
    budget = Budget(steps=3, batch=8, lr=1e-6, looks=1)
    with pytest.raises(TrainingError, match=r"not clearly below.*Nothing is kept"):
        finetune(config(budget=budget), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_class_that_nobody_trains_is_refused(tmp_path: Path, config: Make) -> None:
    images = np.zeros((4, 32, 32), np.int16)
    patients = list("abcd")
    index = pl.DataFrame(
        {
            "patient": patients,
            "series": patients,
            "split": ["train", "train", "val", "test"],
            "lesion": [0, 0, 1, 1],
        }
    )
    place = write_store(tmp_path / "store", images, index).path
    with pytest.raises(LabelError, match="no training patient carries '1' of 'lesion'"):
        finetune(config(store=str(place)), tmp_path / "out")


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_learning_rate_that_was_trained_is_not_trained_again(
    classifier: Finetuned, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as late:
        late.setattr("hounsfield.classify.finetune.facts_of", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(config(), tmp_path / "out")
    assert not (tmp_path / "out" / FILE).exists()
    monkeypatch.setattr("hounsfield.train.training.Training.update", stop)
    done = finetune(config(), tmp_path / "out")
    assert (done.folder / FILE).read_bytes() == (classifier.folder / FILE).read_bytes()
    assert {path.name for path in done.folder.iterdir()} == {
        FILE, "config.json", "run.json", "scores.parquet", "curve.parquet",
    }  # fmt: skip


def test_the_disk_is_asked_beforehand_for_all_that_the_checkpoints_take(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        "hounsfield.classify.finetune.check_space", lambda _, size: asked.append(size)
    )
    monkeypatch.setattr("hounsfield.classify.finetune.facts_of", stop)
    with pytest.raises(KeyboardInterrupt):
        finetune(config(), tmp_path / "out")
    lie = [path.stat().st_size for path in (tmp_path / "out" / "trials").rglob("step-*.pt")]
    assert asked == [pytest.approx(sum(lie) + max(lie), rel=0.1)]  # and one being written


def test_a_training_that_goes_on_still_has_the_best_step_of_before(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Training.update

    def until_step_40(training: Training, *of: Any) -> None:
        if training.step == 40:
            raise KeyboardInterrupt
        update(training, *of)

    def first_is_best(score_now: Callable[[], Score | None]) -> Keeper:
        return Keeper(lambda: score_now() and (0.5, 0.0), first_of_equals=True)

    monkeypatch.setattr("hounsfield.study.finetune.Keeper", first_is_best)
    made = config(budget=Budget(steps=60, batch=16, lr=3e-3, looks=4))
    whole = finetune(made, tmp_path / "whole").folder
    assert json.loads((whole / "run.json").read_text())["chosen_step"] == 15
    with monkeypatch.context() as early:
        early.setattr(Training, "update", until_step_40)
        with pytest.raises(KeyboardInterrupt):
            finetune(made, tmp_path / "out")
    out = finetune(made, tmp_path / "out").folder
    for path in whole.iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes(), path.name


def test_a_finished_run_is_told_again(
    classifier: Finetuned, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hounsfield.train.training.Training.update", stop)
    assert finetune(config(), classifier.folder).lines() == classifier.lines()


def test_a_folder_of_another_command_is_refused_and_stays(
    classifier: Finetuned, config: Make, store: Path, tmp_path: Path
) -> None:
    other = Store.open(store)
    place = write_store(tmp_path / "other", other.read(np.arange(len(other))) + 1, other.index).path
    before = (classifier.folder / FILE).read_bytes()
    for changes, said in (
        ({"task": "kind"}, r"differs in task \('lesion' there, 'kind' now\)\."),
        ({"store": str(place)}, rf"differs in store \('{other.hash}' there, '\w+' now\)\."),
        ({"weights": str(classifier.folder)}, r"weights \('scratch' there, '[0-9a-f]{64}' now\)\."),
    ):
        with pytest.raises(OutputError, match=said):
            finetune(config(**changes), classifier.folder)
    assert (classifier.folder / FILE).read_bytes() == before


def test_an_output_of_something_else_and_weights_that_are_not_there_are_refused(
    config: Make, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(OutputError, match="holds something that is no run"):
        finetune(config(), tmp_path)
    with pytest.raises(WeightsError, match="no file at"):
        finetune(config(weights="missing.pth"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(WeightsError, match=r"holds no classifier \(classifier\.safetensors\)"):
        load(tmp_path)
