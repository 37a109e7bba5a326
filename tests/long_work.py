"""Commands small enough for tests, what they work on, and what can be seen of them from outside."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from hounsfield.data.phantom import phantom
from hounsfield.data.store_writer import write_store

JUST_S = 0.02  # a cell that ended so shortly before is the last thing that was done

PRETRAIN = """
method = "{method}"
stores = ["{store}"]
backbone = "resnet10_tiny"
image_size = 64
batch_size = 8
budget.steps = 24
device = "cpu"
[loop]
log_every = 3
watch_every = 8
checkpoint_every = 2
ema = 0.9
tensorboard = false
[spark]
decoder_width = 32
[moco_v2]
queue_size = 32
[byol]
hidden_dim = 64
projection_dim = 16
[swav]
prototypes = 16
hidden_dim = 64
projection_dim = 16
queue_size = 16
queue_from = 0.2
"""

STUDY = """
arms = ["scratch", "moco_v2"]
backbone = "resnet10_tiny"
image_size = 32
fractions = [1.0]
repeats = 1
device = "cpu"
budget = {{ steps = 4, batch = 8, lr = 0.001, looks = 1 }}
stores = {{ ct = "{store}" }}
tasks.bleed = {{ store = "ct", label = "bleed" }}
[pretrain.moco_v2]
batch_size = 8
budget = {{ steps = 6 }}
loop = {{ checkpoint_every = 2, tensorboard = false }}
moco_v2 = {{ queue_size = 32 }}
"""


FINETUNE = [
    "finetune", "--weights=scratch", "--task=region", "--set=backbone=resnet10_tiny",
    "--set=image_size=32", "--set=val_share=0.5", "--set=device=cpu",
    "--set=budget={ steps = 24, batch = 8, lr = [3e-3, 1e-2], looks = 12 }",
]  # fmt: skip

SMALL_STUDY = """
arms = ["scratch"]
backbone = "resnet10_tiny"
image_size = 32
fractions = [1.0]
folds = 2
repeats = 1
device = "cpu"
budget = { steps = 2, batch = 8, lr = 0.001, looks = 1 }
stores = { ct = "store" }
tasks.lesion = { store = "ct", label = "lesion" }
"""
SMALL_PRETRAIN = """
method = "moco_v2"
stores = ["{store}"]
backbone = "resnet10_tiny"
image_size = 32
batch_size = 8
budget.steps = 2
device = "cpu"
"""


@dataclass(frozen=True)
class Work:
    """A command, and what can be seen of it from outside.

    Attributes:
        command: From an output to the arguments of `hounsfield`.
        phase: From an output to the name of what is being done.
        phases: That must each be hit in a soak.
        sore: The phase that a single kill hits.
        result: Patterns of the files that must come out the same.
    """

    command: Callable[[Path], list[str]]
    phase: Callable[[Path], str]
    phases: tuple[str, ...]
    sore: str
    result: tuple[str, ...]


def pretrain_phase(out):
    if not (out / "config.json").exists():
        return "starting"
    if any((out / "checkpoints").glob(".step-*.part")):
        return "writing a checkpoint"
    if any(out.glob("*encoder.safetensors*")):
        return "finishing"
    return "in a step" if any((out / "checkpoints").glob("step-*")) else "before a checkpoint"


def finetune_phase(out):
    rates = sorted(path.name for path in out.glob("trials/*"))
    if not rates:
        return "starting"
    if any(out.glob("*classifier.safetensors*")):
        return "finishing"
    if any(out.glob("trials/*/checkpoints/.step-*.part")):
        return "writing a checkpoint"
    if not any((out / "trials" / rates[-1] / "checkpoints").glob("step-*")):
        return "before a checkpoint"
    return "at the first rate" if len(rates) == 1 else "at the last rate"


def ingest_phase(out):
    staging = out.parent / f".{out.name}.ingest"
    if out.exists():
        return "finishing"
    if any(out.parent.glob(f".{out.name}.*.part")):
        return "joining"
    if any(staging.glob("*.json")):
        return "converting"
    return "reading headers" if staging.exists() else "starting"


def study_phase(out):
    cells = out / "cells"
    if any(out.glob("*results*")):
        return "judging"
    if any(cells.glob(".*.part")):
        return "writing a cell"
    ended = [cell.stat().st_ctime for cell in cells.glob("*")]
    if ended and time.time() - max(ended) < JUST_S:
        return "between cells"
    if any(out.glob("pretrain/*/run.json")):
        return "in a later cell" if ended else "in the first cell"
    return "pre-training" if any(out.glob("pretrain/*/config.json")) else "starting"


def ingest_command(scans):
    def command(out):
        labels, key = str(scans / "dicom/labels.csv"), str(scans / "key")
        fixed = ["--labels", labels, "--size", "64", "--workers", "2", "--key", key]
        return ["ingest", str(scans / "dicom"), "--out", str(out), *fixed]

    return command


def work(kind, scans, tmp_path):
    store = scans / "store"
    if kind == "ingest":
        phases = ("reading headers", "converting", "joining")
        result = ("store.json", "index.parquet", "refused.csv", "shards/*.npy")
        return Work(ingest_command(scans), ingest_phase, phases, "converting", result)
    if kind == "study":
        (tmp_path / "study.toml").write_text(STUDY.format(store=store))
        cell = ("in the first cell", "writing a cell", "between cells", "in a later cell")
        phases = ("pre-training", *cell, "judging")
        run = ("encoder.safetensors", "metrics.jsonl", "checkpoints/step-*.pt")
        result = ("results.parquet", "verdicts.json", "splits.parquet", "ladders.parquet")
        result += ("cells/*/scores.parquet", "cells/*/curve.parquet")
        result += tuple(f"pretrain/*/{name}" for name in run)
        return Work(
            lambda out: ["study", str(tmp_path / "study.toml"), "--out", str(out)],
            study_phase,
            phases,
            "in a later cell",
            result,
        )
    if kind == "finetune":
        phases = ("before a checkpoint", "at the first rate", "at the last rate", "finishing")
        result = ("classifier.safetensors", "scores.parquet", "curve.parquet", "*.json")
        return Work(
            lambda out: [*FINETUNE, "--store", str(store), "--out", str(out)],
            finetune_phase,
            (*phases, "writing a checkpoint"),
            "at the last rate",
            result,
        )
    (tmp_path / "pretrain.toml").write_text(PRETRAIN.format(method=kind, store=store))
    phases = ("before a checkpoint", "in a step", "writing a checkpoint")
    return Work(
        lambda out: ["pretrain", str(tmp_path / "pretrain.toml"), "--out", str(out)],
        pretrain_phase,
        phases,
        "in a step",
        ("encoder.safetensors", "metrics.jsonl", "checkpoints/step-*.pt"),
    )


def small_home(home):
    """An archive, a store, and the files of a pre-training and a study."""
    phantom(home / "archive", patients=1, seed=0, matrix=32)
    chance = np.random.default_rng(0)
    patients = [f"p{number // 2:02d}" for number in range(48)]
    index = pl.DataFrame(
        {"patient": patients, "series": patients, "lesion": [number % 2 for number in range(48)]}
    )
    images = chance.normal(0, 300, (48, 32, 32)).astype(np.int16)
    write_store(home / "store", images, index)
    (home / "study.toml").write_text(SMALL_STUDY)
    (home / "pretrain.toml").write_text(SMALL_PRETRAIN.format(store=home / "store"))
    return home
