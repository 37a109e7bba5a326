import json
import math

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import Field

from hounsfield.config import Config, parse
from hounsfield.data.batches import Pool
from hounsfield.data.store import write_store
from hounsfield.errors import CollapsedError
from hounsfield.methods.base import Method, Step
from hounsfield.methods.swav import SwAV
from hounsfield.seeding import stream
from hounsfield.train import sentinel
from hounsfield.train.health import (
    alignment,
    effective_rank,
    feature_std,
    tasks,
    uniformity,
)
from hounsfield.train.pretrain import PretrainConfig, build, pretrain


class SinkConfig(Config):
    pull: float = Field(default=1.0)


class Sink(Method):
    """Wants every feature to be one: the plainest collapse there is."""

    name = "sink"
    config_class = SinkConfig
    recipe = "single"

    def __init__(self, backbone, config, *, image_size, corpus_size):
        super().__init__()
        self.backbone, self.config = backbone, config

    def forward(self, views):
        return Step(self.config.pull * (self.backbone(views[0]) - 1).square().mean())


class Lopsided(SwAV):
    """Embeds every image at the first prototype."""

    name = "lopsided"

    def embed(self, views):
        first = self.prototypes.weight[:1].detach()
        return [10 * first + 0 * part for part in super().embed(views)]


def store(path, *, labels=None):
    blobs = np.zeros((24, 32, 32), dtype=np.int16)
    for row in range(24):
        blobs[row, row : row + 8, 4 : 4 + 8 * (1 + row % 3)] = 100 * (row - 12)
    index = pl.DataFrame(
        {
            "patient": [f"p{row // 2}" for row in range(24)],
            "series": [f"s{row // 2}" for row in range(24)],
            **(labels or {}),
        }
    )
    return write_store(path, blobs, index)


def config(path, method, **values):
    plain = {
        "method": method,
        "stores": [str(path)],
        "backbone": "resnet10_tiny",
        "image_size": 32,
        "batch_size": 8,
        "budget": {"steps": 40},
        "loop": {"log_every": 5, "watch_every": 5, "checkpoint_every": 4, "tensorboard": False},
        "device": "cpu",
    }
    return parse(PretrainConfig, {**plain, **values}, where="test")


SMALL_SWAV = {"prototypes": 16, "hidden_dim": 16, "projection_dim": 8, "queue_size": 0}


def test_features_that_become_one_end_the_run_and_keep_the_last_good_checkpoint(tmp_path):
    store(tmp_path / "store")
    given = config(
        tmp_path / "store",
        f"{__name__}:Sink",
        optim={"lr": 0.3, "clip": None},
        budget={"steps": 400},
    )
    with pytest.raises(CollapsedError, match=r"feature std .*all images have one feature.*lr"):
        pretrain(given, tmp_path / "run")
    assert list((tmp_path / "run/checkpoints").glob("step-*.pt"))
    assert not (tmp_path / "run/encoder.safetensors").exists()


def test_a_run_that_collapsed_goes_on_where_its_owner_insists(tmp_path, monkeypatch):
    store(tmp_path / "store")
    monkeypatch.setattr(sentinel, "LEAST_STD", 10.0)
    given = config(tmp_path / "store", f"{__name__}:Sink", budget={"steps": 8})
    with pytest.raises(CollapsedError, match=r"--set loop\.alarms=false"):
        pretrain(given, tmp_path / "run")
    loop = given.loop.model_copy(update={"alarms": False})
    run = pretrain(given.model_copy(update={"loop": loop}), tmp_path / "run")
    assert run.steps == 8


def test_swav_at_rest_is_named_by_its_formula(tmp_path, monkeypatch):
    store(tmp_path / "store")
    monkeypatch.setattr(sentinel, "PATIENT_STEPS", 10)
    swav = {**SMALL_SWAV, "temperature": 50.0}  # so soft that every prediction is even
    with pytest.raises(CollapsedError, match=r"loss = ln\(prototypes\) = 2\.773 at step 10"):
        pretrain(config(tmp_path / "store", "swav", swav=swav), tmp_path / "run")


def test_all_images_on_one_prototype_are_named(tmp_path):
    store(tmp_path / "store")
    given = config(tmp_path / "store", f"{__name__}:Lopsided", lopsided=SMALL_SWAV)
    with pytest.raises(CollapsedError, match=r"prototype entropy .* all images on one prototype"):
        pretrain(given, tmp_path / "run")


@pytest.mark.parametrize("method", ["byol", "moco_v2", "spark", "swav"])
def test_every_method_knows_where_it_rests(method, tmp_path):
    plateau = build(config(tmp_path, method, image_size=64), corpus_size=100).plateau()
    line = {"step": 500, "progress": 0.5, "loss": plateau.loss}
    with pytest.raises(CollapsedError, match="loss = "):
        sentinel.check_plateau(line, plateau)
    sentinel.check_plateau({**line, "step": 499}, plateau)
    sentinel.check_plateau({**line, "progress": 0.09}, plateau)
    sentinel.check_plateau({**line, "loss": plateau.loss + 0.1}, plateau)


def test_what_is_seen_is_written_with_the_metrics(tmp_path):
    labels = {"organ": ["head", "lung"] * 12, "name": [str(row) for row in range(24)]}
    store(tmp_path / "store", labels=labels)
    given = config(
        tmp_path / "store",
        "spark",
        image_size=64,
        budget={"steps": 5},
        spark={"decoder_width": 32},
    )
    pretrain(given, tmp_path / "run")
    lines = [
        json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert lines[0].keys() >= {"step", "loss", "lr", "grad_norm"}
    assert lines[1].keys() == {
        "step",
        "feature_std",
        "effective_rank",
        "alignment",
        "uniformity",
        "knn_auc/organ",
        "linear_auc/organ",
    }


def test_the_effective_rank_of_k_even_directions_is_k():
    features = torch.eye(12)[torch.arange(60) % 5]
    assert effective_rank(features) == pytest.approx(5, rel=1e-3)
    assert effective_rank(torch.ones(60, 12)) == pytest.approx(1, rel=1e-3)


def test_the_spread_is_one_for_even_directions_and_zero_for_one():
    even = torch.from_numpy(stream(0, "even").normal(size=(4000, 64)))
    assert feature_std(even) == pytest.approx(1, rel=0.02)
    assert feature_std(torch.ones(50, 64)) == pytest.approx(0, abs=1e-6)


def test_alignment_and_uniformity_are_the_papers_means():
    a, b = (stream(seed, "pairs").normal(size=(9, 4)) for seed in (0, 1))
    unit = [[row / math.sqrt(sum(row**2)) for row in part] for part in (a, b)]
    gaps = [sum((x - y) ** 2) for x, y in zip(*unit, strict=True)]
    pairs = [math.exp(-2 * sum((unit[0][i] - unit[0][j]) ** 2)) for i in range(9) for j in range(i)]
    first, second = torch.from_numpy(a), torch.from_numpy(b)
    assert alignment(first, second) == pytest.approx(np.mean(gaps))
    assert uniformity(first) == pytest.approx(math.log(np.mean(pairs)))


def test_a_probe_has_no_patient_on_both_sides(tmp_path):
    labels = {"organ": ["head", "lung"] * 12, "age_group": [None] * 20 + [1] * 4}
    held = store(tmp_path / "store", labels=labels)
    pool = Pool([held], [np.arange(4, 24)])
    (task,) = tasks(pool, seed=0)
    owners = held.index["patient"].to_numpy()[pool.rows[task.index]]
    assert task.name == "organ"
    assert len(task.index) == 20
    assert not set(owners[task.fitted]) & set(owners[~task.fitted])
