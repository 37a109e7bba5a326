"""What a study folder holds, read without torch and without the stores; what is not there is named.

A study folder is written by `hounsfield study` (or by hand, or half by a machine that died), so
nothing in it is taken for granted: a missing or broken file becomes a sentence in `Study.missing`.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from hounsfield.errors import first_line
from hounsfield.judge.declared import CONTROLS
from hounsfield.judge.results import COLUMNS
from hounsfield.judge.scores import read_cell, read_facts


@dataclass(frozen=True)
class Task:
    """A question with labels: its name, its classes in the order of the logits, its level."""

    name: str
    classes: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One fine-tuning, as far as its `cell.json` tells."""

    folder: Path
    arm: str
    task: str
    protocol: str
    fraction: float
    repeat: int
    fold: int
    status: str
    reason: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One pre-training, as far as its folder tells.

    Attributes:
        folder: Where it lies.
        name: As in the study, else its method.
        config: What was asked, and of what version, on what machine.
        summary: `run.json`: how it ended; empty where it has not.
        metrics: Its log, a mapping a line.
        taken_from: The study that trained it, where that was another.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    taken_from: str


@dataclass(frozen=True)
class Study:
    """A study folder in memory.

    Attributes:
        folder: Where it was read.
        facts: `study.json` as it is.
        tasks: In the study's order.
        arms: Names in the study's order; controls last.
        protocols: In the study's order, the first is the one that is shown first.
        fractions: Falling, as `(1.0, 0.25, 0.1)`.
        results: `results.parquet`, columns of `judge.results.COLUMNS`.
        verdicts: `verdicts.json`.
        left_out: `left_out.json`: the cells that the judge did not count, and why.
        cells: Every cell folder that could be read.
        runs: Every pre-training folder that could be read, in the order of the arms.
        splits: `splits.parquet`, or an empty table.
        ladders: `ladders.parquet`, or an empty table.
        pictures: `pictures/pictures.json`, or an empty mapping.
        missing: A sentence for each thing that was looked for and not found.
    """

    folder: Path
    facts: Mapping[str, Any]
    tasks: tuple[Task, ...]
    arms: tuple[str, ...]
    protocols: tuple[str, ...]
    fractions: tuple[float, ...]
    results: pl.DataFrame
    verdicts: Sequence[Mapping[str, Any]]
    left_out: Sequence[Mapping[str, Any]]
    cells: Sequence[Cell]
    runs: Sequence[Run]
    splits: pl.DataFrame
    ladders: pl.DataFrame
    pictures: Mapping[str, Any]
    missing: tuple[str, ...]

    @property
    def controls(self) -> tuple[str, ...]:
        """The arms that are controls."""
        return tuple(arm for arm in self.arms if arm in CONTROLS)

    def task(self, name: str) -> Task:
        """The task of this name; a task without classes where the study does not know it."""
        return next((task for task in self.tasks if task.name == name), Task(name, ()))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """`results`, a mapping a row."""
        return self.results.to_dicts()

    @cached_property
    def cells_at(self) -> Mapping[tuple[str, str, str], Sequence[Cell]]:
        """The cells of each task, arm and protocol."""
        places: dict[tuple[str, str, str], list[Cell]] = {}
        for cell in self.cells:
            places.setdefault((cell.task, cell.arm, cell.protocol), []).append(cell)
        return places

    @property
    def repeats(self) -> int:
        """How many repeats the plan names, or what the cells show."""
        told = _count(self.facts.get("repeats"))
        return told or 1 + max((cell.repeat for cell in self.cells), default=-1)

    @property
    def folds(self) -> int:
        """How many folds the plan names, at least one: a fixed split is one fold."""
        told = _count(self.facts.get("folds"))
        return max(told, 1 + max((cell.fold for cell in self.cells), default=0))

    @property
    def planned_cells(self) -> int:
        """How many cells the plan names; where it names none, all that its sizes allow."""
        sizes = (self.tasks, self.arms, self.protocols, self.fractions)
        every = math.prod(map(len, sizes)) * self.repeats * self.folds
        cells = self.facts.get("cells")
        return len(cells) if cells and isinstance(cells, list) else every


def read(folder: Path, judged: Path | None = None) -> Study:
    """The study in `folder`.

    Args:
        folder: What `hounsfield study` wrote.
        judged: Where its numbers lie; in `folder` without it.

    Raises:
        InputError: There is no readable `study.json`, so that this is no study folder.
    """
    facts = read_facts(folder)
    missing: list[str] = []
    cells = list(_cells(folder, missing))
    judged = judged or folder
    results = _table(judged / "results.parquet", COLUMNS, missing)
    known = {cell.arm for cell in cells} | set(results["arm"].drop_nulls().to_list())
    arms = _ordered(_names(facts.get("arms")), known)
    runs = [*_runs(folder / "pretrain", mapping(facts.get("pretrainings")), missing)]
    place = {arm: number for number, arm in enumerate(arms)}
    return Study(
        folder=folder,
        facts=facts,
        tasks=_tasks(facts, cells),
        arms=arms,
        protocols=_ordered(_names(facts.get("protocols")), {cell.protocol for cell in cells}),
        fractions=_fractions(facts, cells),
        results=results,
        verdicts=_json_list(judged / "verdicts.json", missing),
        left_out=_json_list(judged / "left_out.json", missing),
        cells=cells,
        runs=sorted(runs, key=lambda run: place.get(run.name, len(arms))),
        splits=_table(folder / "splits.parquet", {}, missing),
        ladders=_table(folder / "ladders.parquet", {}, missing),
        pictures=_mapping(folder / "pictures" / "pictures.json", missing),
        missing=tuple(missing),
    )


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _cells(folder: Path, missing: list[str]) -> Iterator[Cell]:
    for path in sorted((folder / "cells").glob("*/cell.json")):
        told = read_cell(path)
        if told is None:
            missing.append(f"{path.relative_to(folder)} is not readable; the cell is left out.")
            continue
        place, facts = told
        status, reason = str(facts.get("status", "unknown")), str(facts.get("reason") or "")
        yield Cell(path.parent, *place, status, reason, facts)


def _runs(folder: Path, named: Mapping[str, Any], missing: list[str]) -> Iterator[Run]:
    for path in sorted(folder.glob("*/")):
        config, summary = _json(path / "config.json"), _json(path / "run.json")
        if not isinstance(config, dict):
            missing.append(f"pretrain/{path.name} has no readable config.json; it is left out.")
            continue
        if not isinstance(summary, dict):
            missing.append(f"The pre-training pretrain/{path.name} has not ended.")
        flat = {**config, **mapping(config.get("config"))}
        name = mapping(named.get(path.name)).get("name") or flat.get("method") or path.name
        metrics = list(_lines(path / "metrics.jsonl"))
        taken_from = str(mapping(_json(path / "taken.json")).get("study", ""))
        yield Run(path, str(name), flat, mapping(summary), metrics, taken_from)


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The mappings of a JSON-lines file; a torn last line is what an interruption leaves."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def _tasks(facts: Mapping[str, Any], cells: Sequence[Cell]) -> tuple[Task, ...]:
    given = {name: mapping(entry) for name, entry in mapping(facts.get("tasks")).items()}
    tasks = [Task(name, _classes(entry), entry) for name, entry in given.items()]
    names = {task.name for task in tasks}
    extra = sorted({cell.task for cell in cells} - names)
    return (*tasks, *(Task(name, ()) for name in extra))


def _classes(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes; where they are bare numbers, with the label's name before them."""
    classes = tuple(map(str, entry.get("classes") or ()))
    label = str(entry.get("label") or "")
    bare = label and all(name.lstrip("-").isdigit() for name in classes)
    return tuple(f"{label} {name}" for name in classes) if bare else classes


def _fractions(facts: Mapping[str, Any], cells: Sequence[Cell]) -> tuple[float, ...]:
    given = {float(value) for value in facts.get("fractions") or () if _is_number(value)}
    return tuple(sorted(given | {cell.fraction for cell in cells}, reverse=True))


def _names(given: Any) -> list[str]:
    return [*map(str, given)] if isinstance(given, Mapping | list) else []


def _ordered(names: Sequence[str], known: set[str]) -> tuple[str, ...]:
    """The named ones first, then what was only met; controls at the end."""
    every = [*names, *sorted(known - set(names))]
    return tuple(sorted(dict.fromkeys(every), key=lambda name: name in CONTROLS))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _table(path: Path, schema: Mapping[str, Any], missing: list[str]) -> pl.DataFrame:
    """A Parquet table with at least the columns of `schema`; empty where it cannot be read."""
    empty = pl.DataFrame(schema=dict(schema))
    try:
        found = pl.read_parquet(path)
        return pl.concat([empty, found], how="diagonal_relaxed")
    except FileNotFoundError:
        missing.append(f"There is no {path.name}.")
    except (OSError, pl.exceptions.PolarsError) as error:
        missing.append(f"{path.name} cannot be read: {first_line(error)}.")
    return empty


def _mapping(path: Path, missing: list[str]) -> Mapping[str, Any]:
    value = _json(path)
    if not isinstance(value, dict):
        missing.append(f"There is no readable {path.parent.name}/{path.name}.")
        return {}
    return value


def _json_list(path: Path, missing: list[str]) -> list[Mapping[str, Any]]:
    value = _json(path)
    if not isinstance(value, list):
        missing.append(f"There is no readable {path.name}.")
        return []
    return [entry for entry in value if isinstance(entry, dict)]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
