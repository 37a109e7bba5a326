"""A study folder made without training: scores drawn from a stream, judged by the real judge.

The numbers are invented and say nothing about any method; they only have to be well formed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from hounsfield.judge.results import judge
from hounsfield.seeding import stream

ARMS = ("scratch", "spark", "moco_v2", "histogram")
SKILL = {"scratch": 0.9, "spark": 1.6, "moco_v2": 1.2, "histogram": 0.4}
KINDS = {"scratch": "scratch", "histogram": "control", "position": "control"}
PARTS = {"train": 48, "val": 16}
DRAWINGS = ("file", "visible", "drawn")
NO_RUN = ("scratch", "imagenet", "histogram", "position")
Place = tuple[str, str, float, int]  # task, arm, fraction, repeat


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
    broken: Mapping[Place, str] | None = None,
    judged: bool = True,
    rich: bool = True,
) -> Path:
    """Write a study folder.

    Args:
        folder: Where.
        tasks, arms, fractions, repeats, test_patients: The study's size.
        broken: Places whose cell has another status than "done"; "absent" leaves the cell out.
        judged: Whether the judge has been there.
        rich: With pre-trainings, pictures, splits, ladders and facts on the stores.
    """
    folder.mkdir(parents=True)
    broken = broken or {}
    write(folder / "study.json", _facts(tasks, arms, fractions, repeats, test_patients, rich=rich))
    for task in tasks:
        test = _test_set(task, test_patients)
        for arm in arms:
            for fraction in fractions:
                for repeat in range(repeats):
                    place = (task.name, arm, fraction, repeat)
                    status = broken.get(place, "done")
                    if status != "absent":
                        _cell(folder, place, status, _scores(task, test, *place))
    if rich:
        _splits(folder, tasks, fractions, repeats, test_patients)
        _pictures(folder / "pictures", tasks, arms)
        for arm in (arm for arm in arms if arm not in NO_RUN):
            _run(folder / "pretrain" / f"{plain(arm)}0123", arm)
    if judged:
        judge(folder)
    return folder


def plain(text: str) -> str:
    return "".join(sign for sign in text if sign.isalnum() or sign == "_") or "nameless"


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _facts(
    tasks: Sequence[FakeTask],
    arms: Sequence[str],
    fractions: Sequence[float],
    repeats: int,
    test_patients: int,
    *,
    rich: bool,
) -> dict[str, Any]:
    sizes = {**PARTS, "test": test_patients}
    counts = [
        {
            part: {name: {"patients": size, "images": size * 9} for name in task.classes}
            for part, size in sizes.items()
        }
        for task in tasks
    ]
    return {
        "format_version": 1,
        "name": "a made-up study",
        "version": "0.1.0",
        "plan_hash": "f" * 16,
        "ladder_hash": "e" * 16,
        "config": {
            "name": "a made-up study",
            "seed": 7,
            "backbone": "resnet10_half",
            "image_size": 96,
            "keep_out": "val_and_test",
            "budget": {"steps": 200, "batch": 32, "lr": [1e-4, 1e-3]},
        },
        "tasks": {
            task.name: {"classes": list(task.classes), "level": task.level, "counts": [counted]}
            for task, counted in zip(tasks, counts, strict=True)
        },
        "arms": {arm: {"kind": KINDS.get(arm, "pretrained")} for arm in arms},
        "fractions": list(fractions),
        "repeats": repeats,
        "folds": 0,
        "protocols": ["fair"],
        "primary": {
            "arm": arms[1],
            "baseline": arms[0],
            "task": tasks[0].name,
            "protocol": "fair",
            "metric": "auc",
            "level": tasks[0].level,
            "fraction": min(fractions),
            "family": [[arm, arms[0]] for arm in arms[1:3]],
            "hypotheses": [[arms[1], arms[2]]] if len(arms) > 2 else [],
        },
        "pretrainings": {
            f"{plain(arm)}0123": {"name": arm, "method": arm, "patients_kept_out": test_patients}
            for arm in arms
            if arm not in NO_RUN
        },
        "stores": {"heads": _store()} if rich else {},
        "machine": {"system": "Linux x86_64", "cores": 2},
        "warnings": ["the task region can be told from the slice's position alone"],
    }


def _store() -> dict[str, Any]:
    return {
        "hash": "d" * 64,
        "slices": 3400,
        "patients": 80,
        "flow": {"files_found": 3490, "duplicates": 60, "refused": 30, "slices": 3400},
        "refused": {"the pixel data is truncated": 30},
        "vendors": {"Siemens": 2000, "": 1400},
        "units": {"hu": 3400},
        "spacing_mm": {"z": [1.0, 5.0, 5.0], "in plane": [0.4, 0.49, 0.6]},
    }


def _test_set(task: FakeTask, patients: int) -> pl.DataFrame:
    chance = stream(0, "test set", task.name)
    rows = []
    for patient in range(patients):
        for _ in range(int(chance.integers(15, 30))):
            if len(task.classes) == 2:
                label = int(patient % 2 == 0 and chance.random() < 0.4)
            else:
                label = int(chance.integers(len(task.classes)))
            rows.append({"slice": len(rows), "patient": f"test{patient:03d}", "label": label})
    return pl.DataFrame(rows).with_columns(pl.col("label").cast(pl.Int32))


def _scores(
    task: FakeTask, test: pl.DataFrame, name: str, arm: str, fraction: float, repeat: int
) -> pl.DataFrame:
    chance = stream(1, name, arm, str(fraction), repeat)
    hard = stream(2, name, arm)  # what makes a patient hard is the same for every repeat
    shifts = {one: hard.normal() * 0.5 for one in test["patient"].unique(maintain_order=True)}
    shift = np.array([shifts[one] for one in test["patient"]])
    skill = SKILL.get(arm, 1.0) * fraction**0.15
    labels = test["label"].to_numpy()
    tables = []
    for split in ("val", "test"):
        logits = {
            f"logit_{index}": skill * (labels == index)
            + chance.normal(size=labels.size)
            + shift * (index - 0.5)
            for index in range(len(task.classes))
        }
        columns = [pl.Series(key, value.astype(np.float32)) for key, value in logits.items()]
        tables.append(test.with_columns(pl.lit(split).alias("split"), *columns))
    return pl.concat(tables).select("split", "slice", "patient", "label", "^logit_.*$")


def _cell(folder: Path, place: Place, status: str, scores: pl.DataFrame) -> None:
    task, arm, fraction, repeat = place
    cell = folder / "cells" / f"{plain(task)}-{plain(arm)}-{fraction:g}-{repeat}"
    steps = np.arange(0, 200, 10)
    loss = 0.7 * np.exp(-steps / 80) + 0.1
    patients = max(round(PARTS["train"] * fraction), 2)
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
        "trials": 2,
        "wall_s": 21.5,
        "device": "cpu",
        "train_loss_first": float(loss[0]),
        "train_loss_last": float(loss[-1]),
        "n_train_patients": patients,
        "n_train_images": patients * 24 + repeat,
        "n_val_patients": max(round(PARTS["val"] * fraction), 1),
        "pretrain_hash": None if arm in NO_RUN else f"{plain(arm)}0123",
        "version": "0.1.0",
    }
    write(cell / "cell.json", facts)
    if status != "failed":
        scores.write_parquet(cell / "scores.parquet")
        pl.DataFrame({"step": steps, "loss": loss}).write_parquet(cell / "curve.parquet")


def _splits(
    folder: Path,
    tasks: Sequence[FakeTask],
    fractions: Sequence[float],
    repeats: int,
    test_patients: int,
) -> None:
    sizes = {**PARTS, "test": test_patients}
    splits = [
        {"task": task.name, "fold": 0, "split": part, "patient": f"{part}{number:03d}"}
        for task in tasks
        for part, size in sizes.items()
        for number in range(size)
    ]
    ladders = [
        {
            "task": task.name,
            "fold": 0,
            "repeat": repeat,
            "fraction": fraction,
            "split": part,
            "patient": f"{part}{number:03d}",
        }
        for task in tasks
        for repeat in range(repeats)
        for fraction in fractions
        for part, size in PARTS.items()
        for number in range(max(round(size * fraction), 1))
    ]
    pl.DataFrame(splits).write_parquet(folder / "splits.parquet")
    pl.DataFrame(ladders).write_parquet(folder / "ladders.parquet")


def _pictures(folder: Path, tasks: Sequence[FakeTask], arms: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for number in range(4):
        (folder / f"{number}.png").write_bytes(png(number))
    mistakes = [
        {
            "task": task.name,
            "arm": arms[1],
            "fraction": 0.1,
            "repeat": 0,
            "patient": "test002",
            "slice": 40 + number,
            "label": 0,
            "predicted": 1,
            "probability": 0.97 - number / 50,
            "file": f"{number}.png",
            "saliency": f"{(number + 1) % 4}.png",
        }
        for task in tasks
        for number in range(4)
    ]
    montage = [{"file": f"{number}.png", "title": f"slice {number}"} for number in range(4)]
    drawn = [
        {
            "arm": arms[1],
            "run": f"{plain(arms[1])}0123",
            "patient": f"train{number:03d}",
            "slice": number,
            **{key: f"{(number + shift) % 4}.png" for shift, key in enumerate(DRAWINGS)},
        }
        for number in range(4)
    ]
    lists = {"mistakes": mistakes, "reconstructions": drawn, "montage": montage}
    write(folder / "pictures.json", lists)


def png(seed: int, size: int = 64) -> bytes:
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    body = 140.0 * (x**2 + (y * 1.2) ** 2 < 0.7) + stream(4, seed).normal(size=(size, size)) * 12
    buffer = BytesIO()
    Image.fromarray(np.clip(body, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _run(folder: Path, method: str) -> None:
    config = {"method": method, "backbone": "resnet10_half", "image_size": 96, "batch_size": 64}
    machine = {"system": "Linux x86_64", "cores": 2}
    write(folder / "config.json", {"config": config, "machine": machine, "version": "0.1.0"})
    chance = stream(3, method)
    lines = [
        {
            "step": step,
            "loss": float(0.5 + np.exp(-step / 300) + 0.02 * chance.normal()),
            "lr": 1e-3 * (1 - step / 1000),
            "feature_std": float(0.8 + 0.02 * chance.normal()),
        }
        for step in range(0, 1000, 10)
    ]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"step": 10'  # a torn last line
    (folder / "metrics.jsonl").write_text(text)
    done = {"done": True, "wall_s": 1800.0, "images_per_s": 301.0, "steps": 1000}
    done |= {"device": "NVIDIA H100", "processes": 2}
    write(folder / "run.json", done)
