"""What a study folder's cells scored, laid side by side: what is not comparable is left out."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hounsfield.errors import InputError, LeakError, first_line
from hounsfield.judge.declared import Declared
from hounsfield.judge.metrics import Truth

Place = tuple[str, str, str, float, int, int]  # arm, task, protocol, fraction, repeat, fold


@dataclass(frozen=True)
class Cell:
    """A cell's test scores, sorted by patient and slice.

    Attributes:
        place: Arm, task, protocol, fraction, repeat and fold.
        test: `slice`, `patient` and `label` of each test image.
        logits: (images, classes).
        train_patients: Patients that the cell learned from, if it says so.
        train_images: Images that the cell learned from, if it says so.
        unfinished: Whether its training had not ended when its steps did.
    """

    place: Place
    test: pl.DataFrame
    logits: NDArray[np.float32]
    train_patients: int | None
    train_images: int | None
    unfinished: bool

    @property
    def test_hash(self) -> str:
        """Changes with any test image, its patient or its label, and with the classes."""
        columns = [self.test[name].cast(pl.String).str.join("\x1f").item() for name in TEST]
        columns.append(str(self.logits.shape[1]))
        return hashlib.sha256("\x1e".join(columns).encode()).hexdigest()


@dataclass(frozen=True)
class LeftOut:
    """A cell that takes no part, and why."""

    arm: str
    task: str
    protocol: str
    fraction: float
    repeat: int
    fold: int
    status: str
    reason: str


@dataclass(frozen=True)
class Board:
    """All scores of one task under one protocol, on the same test images.

    Attributes:
        task: Name of the task.
        protocol: Name of the protocol.
        unit: What a row of scores is of: `slice`, `series` or `patient`.
        arms: As declared.
        fractions: As declared, falling.
        truth: The test images of all folds.
        logits: (arms, fractions, repeats, images, classes); 0 where not `complete`.
        complete: Whether every fold of a model is there (arms, fractions, repeats).
        train_patients: Mean over a point's cells (arms, fractions); NaN where unknown.
        train_images: Mean over a point's cells (arms, fractions); NaN where unknown.
        unfinished: Cells whose training had not ended (arms, fractions).
    """

    task: str
    protocol: str
    unit: str
    arms: tuple[str, ...]
    fractions: tuple[float, ...]
    truth: Truth
    logits: NDArray[np.floating[Any]]
    complete: NDArray[np.bool_]
    train_patients: NDArray[np.float64]
    train_images: NDArray[np.float64]
    unfinished: NDArray[np.int64]

    @property
    def folds(self) -> int:
        """Folds of the cross-validation, 1 for a fixed test set."""
        return len(np.unique(self.truth.folds))


TEST = ("slice", "patient", "label")


def read_facts(folder: Path) -> Mapping[str, Any]:
    """What `study.json` says.

    Raises:
        InputError: `folder` is not a study's.
    """
    try:
        facts = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no study.json, so it is no study. Give the folder that "
            "`hounsfield study` wrote."
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'study.json'} cannot be read: {error}.") from None
    if not isinstance(facts, dict):
        raise InputError(f"{folder / 'study.json'} is not a study's: it is no JSON object.")
    return facts


def read_cells(
    folder: Path, facts: Mapping[str, Any], plan: Declared
) -> tuple[list[Cell], list[LeftOut]]:
    """The cells of the plan that have scores, and those that take no part.

    A cell takes no part if it failed, if its scores are missing, broken or not finite, or if
    its test images are not those of most cells of its task and fold.
    """
    cells: list[Cell] = []
    left_out: list[LeftOut] = []
    for path in _planned(folder, facts):
        told = read_cell(path / "cell.json")
        if told is None:
            left_out.append(
                LeftOut("", "", "", 0.0, 0, 0, "failed", f"{path.name}/cell.json is broken")
            )
            continue
        place, facts_of_cell = told
        if not _is_planned(place, plan):
            continue
        status = str(facts_of_cell.get("status"))
        reason = str(facts_of_cell.get("reason") or "")
        if status in ("done", "unfinished"):
            found = _read(path / "scores.parquet", place, facts_of_cell)
            if isinstance(found, Cell):
                cells.append(found)
                continue
            status, reason = "failed", found
        left_out.append(LeftOut(*place, status, reason))
    return _on_the_same_images(cells, left_out)


def read_cell(path: Path) -> tuple[Place, Mapping[str, Any]] | None:
    """The place of a cell and all that its `cell.json` at `path` says; None where it is broken."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return (
            str(facts["arm"]),
            str(facts["task"]),
            str(facts["protocol"]),
            float(facts["fraction"]),
            int(facts["repeat"]),
            int(facts.get("fold") or 0),
        ), facts
    except (OSError, ValueError, KeyError, TypeError):
        return None


def boards(cells: Sequence[Cell], plan: Declared) -> Iterator[Board]:
    """A board for each task and protocol; what the plan names and no cell holds is incomplete.

    Raises:
        LeakError: A test patient stands in two folds.
    """
    for task, protocol in dict.fromkeys(cell.place[1:3] for cell in cells):
        yield _board([cell for cell in cells if cell.place[1:3] == (task, protocol)], plan)


def _planned(folder: Path, facts: Mapping[str, Any]) -> list[Path]:
    """The folders of the plan's cells: cells of an older plan may lie beside them."""
    there = sorted(path.parent for path in (folder / "cells").glob("*/cell.json"))
    planned = facts.get("cells")
    if not isinstance(planned, list):
        return there
    return [path for path in there if path.name in planned]


def _is_planned(place: Place, plan: Declared) -> bool:
    arm, _, _, fraction, repeat, fold = place
    return (
        arm in plan.arms
        and fraction in plan.fractions
        and repeat in range(plan.repeats)
        and fold in range(plan.folds)
    )


def _read(path: Path, place: Place, facts: Mapping[str, Any]) -> Cell | str:
    """The cell, or why it cannot be judged."""
    try:
        table = pl.read_parquet(path).filter(pl.col("split") == "test").sort("patient", "slice")
        columns = sorted(
            (name for name in table.columns if name.startswith("logit_")),
            key=lambda name: int(name.removeprefix("logit_")),
        )
        test = table.select(TEST)
        logits = table.select(columns).to_numpy().astype(np.float32)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        return f"scores.parquet cannot be read: {first_line(error)}"
    if not len(test) or len(columns) < 2:
        return "scores.parquet has no test scores of two classes or more"
    if not np.isfinite(logits).all():
        return "a score is not finite"
    if test["patient"].null_count() or (test["patient"] == "").any():
        return "a test image has no patient; slices must not be taken for independent patients"
    if not test["label"].is_between(0, len(columns) - 1).fill_null(False).all():
        return f"a label is not one of the classes 0 to {len(columns) - 1}"
    return Cell(
        place,
        test,
        logits,
        train_patients=facts.get("n_train_patients"),
        train_images=facts.get("n_train_images"),
        unfinished=facts.get("status") == "unfinished",
    )


def _on_the_same_images(
    cells: Sequence[Cell], left_out: list[LeftOut]
) -> tuple[list[Cell], list[LeftOut]]:
    kept, hashes = [], [cell.test_hash for cell in cells]
    votes: dict[tuple[str, int], Counter[str]] = {}
    for cell, key in zip(cells, hashes, strict=True):
        votes.setdefault((cell.place[1], cell.place[5]), Counter())[key] += 1
    seen: set[Place] = set()
    for cell, key in zip(cells, hashes, strict=True):
        usual = votes[cell.place[1], cell.place[5]].most_common(1)[0][0]
        if key != usual:
            reason = (
                "its test images or classes are not those of the other cells of this task and fold"
            )
            left_out.append(LeftOut(*cell.place, "failed", reason))
        elif cell.place in seen:
            left_out.append(LeftOut(*cell.place, "failed", "another cell has the same place"))
        else:
            seen.add(cell.place)
            kept.append(cell)
    return kept, left_out


def _board(cells: Sequence[Cell], plan: Declared) -> Board:
    arms, fractions = plan.arms, plan.fractions
    repeats = range(plan.repeats)
    firsts = {cell.place[5]: cell for cell in reversed(cells)}  # one cell of each fold
    truth, starts = _truth(firsts)

    models = (len(arms), len(fractions), len(repeats))
    logits = np.zeros((*models, len(truth.labels), truth.classes), dtype=np.float32)
    folds_there = np.zeros(models, dtype=np.int64)
    unfinished = np.zeros(models[:2], dtype=np.int64)
    learned: dict[tuple[int, int], list[Cell]] = {}
    for cell in cells:
        arm, _, _, fraction, repeat, fold = cell.place
        at = (arms.index(arm), fractions.index(fraction), repeat)
        logits[at][starts[fold] : starts[fold] + len(cell.test)] = cell.logits
        folds_there[at] += 1
        unfinished[at[:2]] += cell.unfinished
        learned.setdefault(at[:2], []).append(cell)
    train = np.full((2, *models[:2]), np.nan)
    for point, found in learned.items():
        train[0][point] = _mean([cell.train_patients for cell in found])
        train[1][point] = _mean([cell.train_images for cell in found])
    _, task, protocol, *_ = cells[0].place
    complete = folds_there == plan.folds
    unit = plan.levels.get(task, "slice")
    return Board(
        task, protocol, unit, arms, fractions, truth, logits, complete, train[0], train[1],
        unfinished,
    )  # fmt: skip


def _mean(counts: Sequence[int | None]) -> float:
    known = [count for count in counts if count is not None]
    return sum(known) / len(known) if known else float("nan")


def _truth(firsts: Mapping[int, Cell]) -> tuple[Truth, dict[int, int]]:
    """The test images of all folds, one fold after the other, and where each fold starts."""
    folds = sorted(firsts)
    starts, images = {}, 0
    for fold in folds:
        starts[fold] = images
        images += len(firsts[fold].test)
    names = [firsts[fold].test["patient"].to_list() for fold in folds]
    fold_of = {name: fold for fold, people in zip(folds, names, strict=True) for name in people}
    if sum(len(set(people)) for people in names) > len(fold_of):
        raise LeakError(
            f"task {firsts[folds[0]].place[1]!r}: a patient is tested in two folds, so the folds "
            "are not a partition. Run the study anew with grouped folds."
        )
    flat = [name for people in names for name in people]
    people, patients = np.unique(flat, return_inverse=True)
    return Truth(
        labels=np.concatenate(
            [firsts[fold].test["label"].to_numpy().astype(np.int64) for fold in folds]
        ),
        patients=patients.astype(np.int64),
        folds=np.array([fold_of[name] for name in people], dtype=np.int64),
        classes=firsts[folds[0]].logits.shape[1],
    ), starts
