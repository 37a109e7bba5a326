"""What a study's folder says of the study: `study.json`, `splits.parquet`, `ladders.parquet`."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from hounsfield.data.split import PARTS, patients_hash
from hounsfield.data.store import Store
from hounsfield.files import write_json, write_parquet
from hounsfield.provenance import machine, origin
from hounsfield.study.leakage import over_folds
from hounsfield.study.plan import Plan
from hounsfield.study.task import Task, count

FORMAT_VERSION = 1
TRAITS = {"units": "units", "vendors": "vendor", "kernels": "kernel", "contrast": "contrast",
          "sex": "sex"}  # fmt: skip
MOST_VALUES = 12  # of a trait or of a reason; the rest are counted together
CHANGED = (
    "The primary question was changed after cells had run: its results may have been seen before "
    "it was asked."
)


def write_plan(plan: Plan, out: Path, *, leaks: list[dict[str, Any]]) -> None:
    """Write what was planned; `leaks` is what the judged share with what was seen."""
    facts = _facts(plan, leaks)
    if _primary_changed(facts["primary"], out):
        facts["primary_changed"] = True
        facts["warnings"].append(CHANGED)
    write_json(out / "study.json", facts)
    splits = [
        {"task": task, "fold": fold, "split": part, "patient": patient}
        for (task, fold), split in plan.splits.items()
        for part in PARTS
        for patient in getattr(split, part)
    ]
    ladders = [
        {"task": task, "fold": fold, "repeat": repeat, "fraction": fraction, "split": part,
         "patient": patient}
        for (task, fold, repeat, fraction), rung in plan.ladders.items()
        for part in ("train", "val")
        for patient in getattr(rung, part)
    ]  # fmt: skip
    for name, rows in (("splits", splits), ("ladders", ladders)):
        write_parquet(out / f"{name}.parquet", pl.DataFrame(rows, infer_schema_length=None))


def _primary_changed(primary: Any, out: Path) -> bool:
    """Whether the question was another when there were scores already; once so, always so."""
    file = out / "study.json"
    before = json.loads(file.read_bytes()) if file.exists() else {"primary": primary}
    seen = any(out.glob("*/*/scores.parquet"))  # of cells, and of those that are put aside
    return bool(before.get("primary_changed")) or (seen and before["primary"] != primary)


def _facts(plan: Plan, leaks: list[dict[str, Any]]) -> dict[str, Any]:
    config = plan.config
    return {
        "format_version": FORMAT_VERSION,
        **origin(),
        "machine": machine(),
        "name": config.name,
        "plan_hash": plan.hash,
        "config": config.model_dump(mode="json"),
        "stores": {name: _store(Path(path)) for name, path in config.stores.items()},
        "tasks": {name: _task(plan, task) for name, task in plan.tasks.items()},
        "arms": {
            cell.arm: {
                "kind": cell.kind,
                "card": plan.cards[cell.arm].to_json() if cell.arm in plan.cards else None,
            }
            for cell in plan.cells
        },
        "fractions": list(config.fractions),
        "repeats": config.repeats,
        "folds": config.folds,
        "protocols": list(config.protocols),
        "primary": plan.primary and plan.primary.model_dump(mode="json"),
        "pretrainings": {
            run.hash: {
                "name": run.name,
                "method": run.config.method,
                "patients_kept_out": len(run.without),
                "kept_out_hash": patients_hash(run.without),
            }
            for run in plan.pretrainings.values()
        },
        "ladder_hash": patients_hash(*(rung.train + rung.val for rung in plan.ladders.values())),
        "cells": [cell.hash for cell in plan.cells],
        "leaks": leaks,
        "warnings": [*plan.warnings, *(f"Leak: {told}." for told in over_folds(leaks))],
    }


def _task(plan: Plan, task: Task) -> dict[str, Any]:
    return {
        "classes": list(task.classes),
        "label": task.config.label,
        "level": task.config.level,
        "pool": task.config.pool,
        "external": task.external is not None,
        "patients": task.images["patient"].n_unique(),
        "images": len(task.images),
        "counts": [count(task, split) for (of, _), split in plan.splits.items() if of == task.name],
    }


def _store(path: Path) -> dict[str, Any]:
    """A store's size, what became of its files, and how its slices differ."""
    store = Store.open(path)
    refused = pl.read_csv(path / "refused.csv", infer_schema=False)
    spacing = {
        axis: [float(column.min()), float(column.median()), float(column.max())]  # type: ignore[arg-type]
        for axis in "zyx"
        if len(column := store.index[f"spacing_{axis}_mm"].drop_nulls())
    }
    return {
        "hash": store.hash,
        "slices": len(store),
        "patients": store.facts.patients,
        "series": store.facts.series,
        "size": store.size,
        "flow": dict(store.facts.flow),
        "spacing_mm": spacing,
        "refused": _counts(refused["reason"].fill_null("")),
        **{name: _counts(store.index[column]) for name, column in TRAITS.items()},
    }


def _counts(values: pl.Series) -> dict[str, int]:
    """The most frequent values and how often they occur; the rest together."""
    counts = values.value_counts(sort=True)
    rows = [(str(value), int(times)) for value, times in counts.iter_rows()]
    rest = sum(times for _, times in rows[MOST_VALUES:])
    return dict(rows[:MOST_VALUES]) | ({"others": rest} if rest else {})
