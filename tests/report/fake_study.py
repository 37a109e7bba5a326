"""A study folder made without training: scores drawn from a stream, files as a study writes them.

The numbers are invented and say nothing about any method; they only have to be well formed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hounsfield.seeding import stream

ARMS = ("scratch", "spark", "moco_v2", "histogram")
SKILL = {"scratch": 0.9, "spark": 1.6, "moco_v2": 1.2, "histogram": 0.4}


@dataclass(frozen=True)
class FakeTask:
    name: str
    classes: tuple[str, ...]
    level: str = "slice"


TASKS = (FakeTask("bleed", ("no bleed", "bleed")), FakeTask("region", ("head", "chest", "abdomen")))


def fake_study(
    folder: Path,
    *,
    tasks: Sequence[FakeTask] = TASKS,
    arms: Sequence[str] = ARMS,
    fractions: Sequence[float] = (1.0, 0.25, 0.1),
    repeats: int = 3,
    test_patients: int = 16,
    broken: Mapping[tuple[str, str, float, int], str] | None = None,
    judged: bool = True,
    pretrained: bool = True,
) -> Path:
    """Write a study folder; `broken` gives `(task, arm, fraction, repeat)` another status.

    The status "absent" leaves the cell out.
    """
    folder.mkdir(parents=True)
    broken = broken or {}
    facts = _facts(tasks, arms, fractions, repeats)
    _write(folder / "study.json", facts)
    scores: dict[tuple[str, str, float, int], pl.DataFrame] = {}
    for task in tasks:
        test = _test_set(task, test_patients)
        for arm in arms:
            for fraction in fractions:
                for repeat in range(repeats):
                    key = (task.name, arm, fraction, repeat)
                    status = broken.get(key, "done")
                    if status != "absent":
                        table = _scores(task, test, *key)
                        scores[key] = table
                        _cell(folder, key, status, table)
    _splits(folder, tasks, test_patients)
    if pretrained:
        for arm in arms:
            if arm not in ("scratch", "histogram", "position"):
                _run(folder / "pretrain" / f"{arm}0123", arm)
    if judged:
        _results(tasks, arms, fractions, scores).write_parquet(folder / "results.parquet")
        _write(folder / "verdicts.json", _verdicts(tasks))
    return folder


def _facts(
    tasks: Sequence[FakeTask], arms: Sequence[str], fractions: Sequence[float], repeats: int
) -> dict[str, Any]:
    return {
        "name": "a made-up study",
        "version": "0.1.0",
        "commit": "0" * 40,
        "plan_hash": "f" * 64,
        "tasks": [
            {"name": task.name, "classes": list(task.classes), "level": task.level}
            for task in tasks
        ],
        "arms": list(arms),
        "fractions": list(fractions),
        "repeats": repeats,
        "folds": 1,
        "protocols": ["fair"],
        "primary": {
            "task": tasks[0].name,
            "arm": arms[1],
            "baseline": arms[0],
            "fraction": min(fractions),
            "metric": "auc",
            "level": tasks[0].level,
        },
        "warnings": ["the task region can be told from the slice's position alone"],
    }


def _test_set(task: FakeTask, patients: int) -> pl.DataFrame:
    chance = stream(0, "test set", task.name)
    rows = []
    for patient in range(patients):
        ill = patient % 2 == 0
        for _ in range(int(chance.integers(15, 30))):
            if len(task.classes) == 2:
                label = int(ill and chance.random() < 0.4)
            else:
                label = int(chance.integers(len(task.classes)))
            rows.append({"slice": len(rows), "patient": f"p{patient:03d}", "label": label})
    return pl.DataFrame(rows).with_columns(pl.col("label").cast(pl.Int32))


def _scores(
    task: FakeTask, test: pl.DataFrame, name: str, arm: str, fraction: float, repeat: int
) -> pl.DataFrame:
    chance = stream(1, name, arm, str(fraction), repeat)
    body = stream(2, name, arm)  # what makes a patient hard is the same for every repeat
    patients = {
        patient: body.normal() * 0.5 for patient in test["patient"].unique(maintain_order=True)
    }
    skill = SKILL.get(arm, 1.0) * fraction**0.15
    labels = test["label"].to_numpy()
    tables = []
    for split in ("val", "test"):
        columns = {}
        for index in range(len(task.classes)):
            shift = np.array([patients[patient] for patient in test["patient"]]) * (index - 0.5)
            logit = skill * (labels == index) + chance.normal(size=labels.size) + shift
            columns[f"logit_{index}"] = logit.astype(np.float32)
        tables.append(
            test.with_columns(split=pl.lit(split), **{k: pl.Series(v) for k, v in columns.items()})
        )
    return pl.concat(tables).select("split", "slice", "patient", "label", "^logit_.*$")


def _cell(
    folder: Path, key: tuple[str, str, float, int], status: str, scores: pl.DataFrame
) -> None:
    task, arm, fraction, repeat = key
    place = (
        folder
        / "cells"
        / f"{task[:3]}-{arm}-{fraction:g}-{repeat}".replace("<", "").replace("/", "")
    )
    place.mkdir(parents=True)
    steps = np.arange(0, 200, 10)
    loss = 0.7 * np.exp(-steps / 80) + 0.1
    patients = max(round(48 * fraction), 2)
    facts = {
        "task": task,
        "arm": arm,
        "protocol": "fair",
        "fraction": fraction,
        "repeat": repeat,
        "fold": 0,
        "status": status,
        "reason": "the loss is not finite at step 30" if status == "failed" else "",
        "steps": 200,
        "lr": 3e-4,
        "wall_s": 21.5,
        "train_loss_first": float(loss[0]),
        "train_loss_last": float(loss[-1]),
        "n_train_patients": patients,
        "n_train_images": patients * 24 + repeat,
        "pretrain_hash": None if arm in ("scratch", "histogram") else f"{arm}0123",
        "version": "0.1.0",
        "commit": "0" * 40,
    }
    _write(place / "cell.json", facts)
    if status != "failed":
        scores.write_parquet(place / "scores.parquet")
        pl.DataFrame({"step": steps, "loss": loss}).write_parquet(place / "curve.parquet")


def _splits(folder: Path, tasks: Sequence[FakeTask], test_patients: int) -> None:
    sizes = {"train": 48, "val": 16, "test": test_patients}
    rows = [
        {"task": task.name, "fold": 0, "patient": f"{split}{number:03d}", "split": split}
        for task in tasks
        for split, size in sizes.items()
        for number in range(size)
    ]
    pl.DataFrame(rows).write_parquet(folder / "splits.parquet")


def _run(folder: Path, method: str) -> None:
    folder.mkdir(parents=True)
    config = {"method": method, "backbone": "resnet10_half", "image_size": 96, "batch_size": 64}
    _write(folder / "config.json", {"config": config, "version": "0.1.0", "commit": "0" * 40})
    chance = stream(3, method)
    lines = [
        {
            "step": step,
            "loss": float(0.5 + np.exp(-step / 300) + 0.02 * chance.normal()),
            "lr": 1e-3 * (1 - step / 1000),
            "feature_std": float(0.8 + 0.02 * chance.normal()),
            "images_per_s": float(300 + 9 * chance.normal()),
        }
        for step in range(0, 1000, 10)
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"step": 10'  # a torn last line
    (folder / "metrics.jsonl").write_text(text)
    done = {"done": True, "wall_s": 1830.0, "images_per_s": 301.0, "steps": 1000, "loss": 0.52}
    _write(folder / "run.json", done)


def _results(
    tasks: Sequence[FakeTask],
    arms: Sequence[str],
    fractions: Sequence[float],
    scores: Mapping[tuple[str, str, float, int], pl.DataFrame],
) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for task in tasks:
        values: dict[tuple[str, float], float] = {}
        for arm in arms:
            for fraction in fractions:
                found = [
                    table for key, table in scores.items() if key[:3] == (task.name, arm, fraction)
                ]
                if found:
                    values[arm, fraction] = float(np.mean([_auc(task, table) for table in found]))
                    low, high = (
                        max(values[arm, fraction] - 0.09, 0.0),
                        min(values[arm, fraction] + 0.07, 1.0),
                    )
                    rows.append(
                        _row("level", task, arm, None, fraction, values[arm, fraction], low, high)
                    )
        for arm in arms:
            drops = [
                fraction for fraction in fractions if fraction < 1 and (arm, fraction) in values
            ]
            for fraction in drops:
                drop = values[arm, 1.0] - values[arm, fraction]
                rows.append(_row("drop", task, arm, None, fraction, drop, drop - 0.05, drop + 0.05))
            area = float(
                np.mean([values[arm, part] for part in fractions if (arm, part) in values])
            )
            rows.append(_row("curve_area", task, arm, None, None, area, area - 0.06, area + 0.05))
            for other in arms:
                if other == arm:
                    continue
                for fraction in fractions:
                    if (arm, fraction) in values and (other, fraction) in values:
                        gap = values[arm, fraction] - values[other, fraction]
                        rows.append(
                            _row(
                                "difference",
                                task,
                                arm,
                                other,
                                fraction,
                                gap,
                                gap - 0.06,
                                gap + 0.06,
                                p=0.04,
                            )
                        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _row(
    kind: str,
    task: FakeTask,
    arm: str,
    baseline: str | None,
    fraction: float | None,
    estimate: float,
    low: float,
    high: float,
    p: float | None = None,
) -> dict[str, Any]:
    return {
        "kind": kind,
        "task": task.name,
        "protocol": "fair",
        "level": task.level,
        "metric": "auc",
        "arm": arm,
        "baseline": baseline,
        "fraction": fraction,
        "estimate": estimate,
        "low": low,
        "high": high,
        "p": p,
        "p_holm": None if p is None else min(p * 3, 1.0),
        "df": 7.5,
        "n_patients": 16,
        "n_positive_patients": 8,
        "n_images": 350,
        "repeats": 3,
        "folds": 1,
        "flag": "few patients",
        "reason": "",
    }


def _auc(task: FakeTask, table: pl.DataFrame) -> float:
    from sklearn.metrics import roc_auc_score

    test = table.filter(pl.col("split") == "test")
    logits = test.select("^logit_.*$").to_numpy().astype(np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = test["label"].to_numpy()
    if len(task.classes) == 2:
        return float(roc_auc_score(labels, chances[:, 1]))
    return float(roc_auc_score(labels, chances, multi_class="ovr"))


def _verdicts(tasks: Sequence[FakeTask]) -> list[dict[str, Any]]:
    return [
        {
            "task": task.name,
            "hypothesis": "SparK is more robust to few labels than MoCo v2",
            "verdict": "undecided",
            "why": "the drops differ by -0.02 [-0.09, 0.05]",
        }
        for task in tasks
    ]


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
