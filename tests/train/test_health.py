import json
import math

import numpy as np
import pytest
import torch

from hounsfield.data.batches import Pool
from hounsfield.seeding import stream
from hounsfield.train.health import (
    alignment,
    effective_rank,
    feature_std,
    tasks,
    uniformity,
)
from hounsfield.train.pretrain import pretrain
from train.tiny_run import config, store


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
