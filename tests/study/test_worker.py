import copy
import json

import numpy as np
import polars as pl
import pytest
import safetensors.torch
from sklearn.metrics import roc_auc_score

from hounsfield.models.backbone import create
from hounsfield.study import finetune, trained
from hounsfield.study.plan import plan
from hounsfield.study.scores import choice, table
from hounsfield.study.worker import Worker


def facts_of(folder, cell):
    return json.loads((folder / "cells" / cell.hash / "cell.json").read_text())


def scores_of(folder, cell):
    return pl.read_parquet(folder / "cells" / cell.hash / "scores.parquet")


def test_a_cell_learns_what_can_be_seen_and_leaves_its_scores(study, tmp_path):
    planned = plan(study(budget={"steps": 60, "batch": 16, "lr": 0.01}, fractions=[1.0], repeats=1))
    (cell,) = planned.cells
    ended = Worker(planned, tmp_path).run(cell)
    assert (ended.status, ended.reason) == ("done", "")
    scores = scores_of(tmp_path, cell)
    assert scores.columns == ["split", "slice", "patient", "label", "logit_0", "logit_1"]
    test = scores.filter(split="test")
    assert set(test["patient"]) == set(cell.test)
    assert set(scores.filter(split="val")["patient"]) == set(cell.rung.val)
    store = planned.tasks["lesion"].images
    assert test["label"].to_list() == store[test["slice"].to_list()]["label"].to_list()
    assert roc_auc_score(test["label"], test["logit_1"] - test["logit_0"]) > 0.95
    facts = facts_of(tmp_path, cell)
    assert facts["train_loss_last"] < 0.3 < facts["train_loss_guess"]
    assert facts["n_train_patients"] == len(cell.rung.train)


def test_the_same_cell_gives_the_same_scores_twice(study, tmp_path):
    planned = plan(study(fractions=[0.5], repeats=1))
    (cell,) = planned.cells
    Worker(planned, tmp_path / "one").run(cell)
    Worker(planned, tmp_path / "two").run(cell)
    assert scores_of(tmp_path / "one", cell).equals(scores_of(tmp_path / "two", cell))


def test_a_training_that_learns_nothing_is_unfinished(study, tmp_path):
    planned = plan(study(budget={"steps": 10, "batch": 8, "lr": 1e-9}, fractions=[1.0], repeats=1))
    (cell,) = planned.cells
    ended = Worker(planned, tmp_path).run(cell)
    assert ended.status == "unfinished"
    assert "not clearly below the 0.693 of guessing" in ended.reason
    assert len(scores_of(tmp_path, cell))  # it is flagged, not thrown away


def test_a_cell_that_fails_says_why_and_leaves_no_scores(study, tmp_path):
    planned = plan(study(budget={"steps": 10, "batch": 8, "lr": 1e30}, fractions=[1.0], repeats=1))
    (cell,) = planned.cells
    ended = Worker(planned, tmp_path).run(cell)
    assert ended.status == "failed"
    assert "diverged at every learning rate (1e+30)" in ended.reason
    assert [path.name for path in (tmp_path / "cells" / cell.hash).iterdir()] == ["cell.json"]


def test_every_arm_tries_as_many_rates_and_the_best_on_validation_is_kept(study, tmp_path):
    budget = {"steps": 40, "batch": 16, "lr": [1e-6, 1e-2]}
    planned = plan(study(budget=budget, fractions=[1.0], repeats=1))
    (cell,) = planned.cells
    Worker(planned, tmp_path).run(cell)
    facts = facts_of(tmp_path, cell)
    assert facts["trials"] == 2
    assert facts["lr"] == facts["rates"][int(np.argmax(facts["val_scores"]))] == 1e-2
    assert facts["lr_at_edge"]


def test_few_validation_patients_take_the_last_step_and_none_take_the_middle_rate(study, tmp_path):
    budget = {"steps": 10, "batch": 8, "lr": [1e-3, 1e-2, 2e-2]}
    planned = plan(study(budget=budget, fractions=[1.0], repeats=1, val_share=0))
    (cell,) = planned.cells
    worker = Worker(planned, tmp_path)
    assert not worker.labels(cell).enough
    worker.run(cell)
    facts = facts_of(tmp_path, cell)
    assert (facts["trials"], facts["lr"], facts["chosen_step"]) == (1, 1e-2, 10)


def test_the_choice_is_the_auc_with_patients_enough_and_the_likelihood_with_few():
    logits = np.array([[0, 2.0], [0, 1.0], [0, -1.0], [0, 1.5]])
    rows = pl.DataFrame({"label": [1, 1, 0, 0], "logit_0": logits[:, 0], "logit_1": logits[:, 1]})
    p = 1 / (1 + np.exp(-logits[:, 1]))
    expected = np.log([p[0], p[1], 1 - p[2], 1 - p[3]]).mean()
    area = roc_auc_score([1, 1, 0, 0], logits[:, 1])
    assert choice(rows, classes=2, enough=True) == pytest.approx((area, expected))
    assert choice(rows, classes=2, enough=False) == pytest.approx((expected, 0))
    assert choice(rows.filter(label=1), classes=2, enough=True) is None


@pytest.mark.parametrize("pool", ["mean_logit", "max_odds", "mean_probability"])
def test_scores_of_a_patients_slices_become_one(study, pool):
    tasks = {"kind": {"store": "ct", "label": "kind", "level": "patient", "pool": pool}}
    task = plan(study(tasks=tasks)).tasks["kind"]
    places = task.rows(["p00", "p01"])
    logits = np.random.default_rng(0).normal(size=(len(places), 2)).astype(np.float32)
    rows = table(task, places, logits, split="test")
    assert rows["patient"].to_list() == ["p00", "p01"]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = {
        "mean_logit": logits[:6].mean(0),
        "max_odds": max(logits[:6], key=lambda pair: pair[1] - pair[0]),
        "mean_probability": np.log(probabilities[:6].mean(0)),
    }[pool]
    np.testing.assert_allclose(rows.row(0)[4:], expected, rtol=1e-5)


def test_the_loss_must_end_clearly_below_guessing():
    curve = [{"step": step, "loss": 1.0 - step / 100} for step in range(1, 101)]
    first, last = trained.fall(curve, 100)
    assert first == pytest.approx(np.mean([1 - s / 100 for s in range(1, 11)]))
    assert last == pytest.approx(np.mean([1 - s / 100 for s in range(91, 101)]))
    assert trained.unfinished(last, 0.693) == ""
    assert "give more steps" in trained.unfinished(0.65, 0.693)


def test_the_rate_falls_from_stage_to_stage_of_a_backbone_and_not_in_the_head():
    backbone = create("resnet10_tiny")
    factors = finetune.layer_factors(backbone, 0.5)
    named = {name: factors[p] for name, p in backbone.net.named_parameters()}
    assert {name.split(".")[0]: factor for name, factor in named.items()} == {
        "conv1": 0.5**5, "bn1": 0.5**5, "layer1": 0.5**4, "layer2": 0.5**3, "layer3": 0.5**2,
        "layer4": 0.5,
    }  # fmt: skip
    assert finetune.layer_factors(backbone, 1.0) == {}


def test_only_an_arm_that_brings_weights_moves_its_lower_stages_less(study, tmp_path):
    weights = tmp_path / "start.safetensors"
    start = create("resnet10_tiny", seed=5)
    safetensors.torch.save_file(start.net.state_dict(), weights)
    budget = {"steps": 4, "batch": 8, "lr": 1e-3, "layer_decay": 0.5, "weight_decay": 0}
    planned = plan(
        study(arms=["scratch", "mine"], weights={"mine": str(weights)}, budget=budget,
              fractions=[1.0], repeats=1)
    )  # fmt: skip
    moved = {}
    for cell in planned.cells:
        worker = Worker(planned, tmp_path / "out")
        fresh = worker.start(cell)
        kept = fresh()
        worker.start = lambda cell, kept=kept: lambda: kept
        before = copy.deepcopy(kept.net.state_dict())
        worker.run(cell)
        after = kept.net.state_dict()
        moved[cell.arm] = {
            name: (after[name] - before[name]).abs().mean().item()
            for name in ("conv1.weight", "layer4.0.conv2.weight")
        }
    ratio = {arm: steps["conv1.weight"] / steps["layer4.0.conv2.weight"]
             for arm, steps in moved.items()}  # fmt: skip
    assert ratio["mine"] == pytest.approx(ratio["scratch"] / 2**4, rel=0.3)  # four stages apart


@pytest.mark.parametrize("sided", [False, True])
def test_images_of_a_sided_task_are_never_mirrored(study, tmp_path, monkeypatch, sided):
    task = {"store": "ct", "label": "lesion", "sided": sided}
    planned = plan(study(tasks={"lesion": task}, fractions=[1.0], repeats=1))
    names = []
    recipe = finetune.recipe
    monkeypatch.setattr(
        finetune, "recipe", lambda name, **k: names.append(name) or recipe(name, **k)
    )
    Worker(planned, tmp_path).run(planned.cells[0])
    assert names == ["supervised_sided" if sided else "supervised"]


def test_a_score_that_is_not_finite_fails_its_cell(study, tmp_path):
    planned = plan(study(fractions=[1.0], repeats=1))
    (cell,) = planned.cells
    worker = Worker(planned, tmp_path)
    labels = worker.labels(cell)
    broken = trained.Trained(
        val=np.zeros((len(labels.val), 2), np.float32),
        test=np.full((len(labels.test), 2), np.nan, np.float32),
        curve=[],
    )
    worker.train = lambda cell: broken
    ended = worker.run(cell)
    assert ended.status == "failed"
    assert ended.reason.startswith("24 of ")
    assert ended.reason.endswith("scores are not finite numbers.")
    assert [path.name for path in (tmp_path / "cells" / cell.hash).iterdir()] == ["cell.json"]
