"""A study from plan to judged results: pre-trainings, then cells; what is finished stays."""

import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hounsfield import __version__
from hounsfield.data.split import patients_hash
from hounsfield.data.store import Store
from hounsfield.errors import InterruptedRun, OutputError
from hounsfield.files import disk_errors, write_json
from hounsfield.judge.results import judge
from hounsfield.lock import held
from hounsfield.progress import bar
from hounsfield.study.parallel import one_by_one, side_by_side
from hounsfield.study.plan import Cell, Plan, Pretraining
from hounsfield.study.task import count
from hounsfield.train.pretrain import pretrain

FORMAT_VERSION = 1
SCORE_BYTES = 24  # of a row of scores.parquet, upper bound per class and row as measured
SPARE_BYTES = 50 * 2**20


@dataclass(frozen=True)
class Outcome:
    """What a run of a study came to.

    Attributes:
        folder: Of the study.
        cells: Of the plan.
        ran: Of these, the ones that this call ran.
        failed: The place and the reason of every cell that failed.
        unfinished: How many cells are marked so.
    """

    folder: Path
    cells: int
    ran: int
    failed: tuple[tuple[str, str], ...]
    unfinished: int


def run(plan: Plan, out: Path, *, jobs: int = 1) -> Outcome:
    """Run all of a plan that `out` does not hold yet, and judge it.

    Args:
        plan: What to run.
        out: The study's folder; new, empty, or one that an earlier call began.
        jobs: Cells side by side.

    Raises:
        OutputError: `out` is another study's, or its disk has too little space.
        BusyError: Another process is at work in `out`.
        DiskError: The disk is full or not writable.
        InterruptedRun: Stopped by the user; finished cells are kept.
        TrainingError: A pre-training failed.
    """
    claim(plan, out)
    with held(out):
        _tidy(plan, out)
        write_plan(plan, out)
        missing = [one for one in plan.pretrainings.values() if not _done(out, one)]
        for one in missing:
            _pretrain(one, out)
        todo = [cell for cell in plan.cells if _status(out, cell) not in ("done", "unfinished")]
        _run_cells(plan, out, todo, jobs=jobs)
        judge(out)
    return _outcome(plan, out, ran=len(todo))


def claim(plan: Plan, out: Path) -> None:
    """Refuse an output that is not ours to write, before anything is written.

    Raises:
        OutputError: `out` is a file, another study's folder, some other folder, or on a disk
            without the space that the study needs.
    """
    if out.is_file():
        raise OutputError(f"{out} is a file. Choose a folder.")
    file = out / "study.json"
    if file.exists():
        name = json.loads(file.read_bytes()).get("name")
        if name != plan.config.name:
            raise OutputError(
                f"{out} holds the study {name!r}, not {plan.config.name!r}. Choose another "
                "folder, or give the study its name back."
            )
    elif out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise OutputError(f"{out} holds something that is no study. Choose an empty or new folder.")
    above = next(path for path in (out, *out.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(above).free, disk_bytes(plan)
    if free < needed:
        raise OutputError(
            f"{out} is on a disk with {free / 2**30:.1f} GiB free; the study needs about "
            f"{needed / 2**30:.1f} GiB. Free some, or choose another disk."
        )


def disk_bytes(plan: Plan) -> int:
    """About what the study will take on the disk: scores, and encoders with their checkpoints."""
    rows = sum(
        len(plan.tasks[cell.task].rows((*cell.rung.val, *cell.test)))
        * (SCORE_BYTES + 4 * len(plan.tasks[cell.task].classes))
        for cell in plan.cells
    )
    return rows + SPARE_BYTES


def write_plan(plan: Plan, out: Path) -> None:
    """Write `study.json`, `splits.parquet` and `ladders.parquet`."""
    write_json(out / "study.json", _facts(plan))
    splits = [
        {"task": task, "fold": fold, "split": part, "patient": patient}
        for (task, fold), split in plan.splits.items()
        for part in ("train", "val", "test")
        for patient in getattr(split, part)
    ]
    ladders = [
        {
            "task": task,
            "fold": fold,
            "repeat": repeat,
            "fraction": fraction,
            "split": part,
            "patient": patient,
        }
        for (task, fold, repeat, fraction), rung in plan.ladders.items()
        for part in ("train", "val")
        for patient in getattr(rung, part)
    ]
    for name, table in (("splits", splits), ("ladders", ladders)):
        frame = pl.DataFrame(table, infer_schema_length=None)
        with disk_errors(out):
            part = out / f".{name}.part"
            frame.write_parquet(part)
            part.replace(out / f"{name}.parquet")


def _facts(plan: Plan) -> dict[str, Any]:
    config = plan.config
    return {
        "format_version": FORMAT_VERSION,
        "version": __version__,
        "name": config.name,
        "plan_hash": plan.hash,
        "config": config.model_dump(mode="json"),
        "tasks": {
            name: {
                "classes": list(task.classes),
                "label": task.config.label,
                "level": task.config.level,
                "pool": task.config.pool,
                "external": task.external is not None,
                "patients": task.images["patient"].n_unique(),
                "images": len(task.images),
                "counts": [
                    count(task, split) for (of, _), split in plan.splits.items() if of == name
                ],
            }
            for name, task in plan.tasks.items()
        },
        "arms": {cell.arm: {"kind": cell.kind} for cell in plan.cells},
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
        "ladder_hash": patients_hash(*(r.train + r.val for r in plan.ladders.values())),
        "cells": [cell.hash for cell in plan.cells],
        "warnings": list(plan.warnings),
    }


def _pretrain(one: Pretraining, out: Path) -> None:
    rows = {}
    for path in one.config.stores:
        store = Store.open(path)
        seen = ~store.index["patient"].is_in(list(one.without))
        rows[path] = seen.arg_true().cast(pl.Int64).to_numpy()
    pretrain(one.config, out / "pretrain" / one.hash, rows=rows)


def _run_cells(plan: Plan, out: Path, todo: Sequence[Cell], *, jobs: int) -> None:
    if not todo:
        return
    places = {cell.hash: cell.place for cell in todo}
    ended = one_by_one(plan, out, todo) if jobs == 1 else side_by_side(plan, out, todo, jobs=jobs)
    behind = len(plan.cells) - len(todo)
    with closing(ended), bar("cells", total=len(plan.cells), done=behind) as progress:
        try:
            for one in ended:
                progress.advance()
                progress.note(f"{one.status}: {places[one.cell]}")
        except KeyboardInterrupt:
            kept = sum(_status(out, cell) is not None for cell in plan.cells)
            raise InterruptedRun(
                f"stopped; {kept} of {len(plan.cells)} cells are kept in {out}. "
                "Run the same command again to go on."
            ) from None


def _outcome(plan: Plan, out: Path, *, ran: int) -> Outcome:
    facts = {cell.hash: _cell_facts(out, cell) for cell in plan.cells}
    return Outcome(
        folder=out,
        cells=len(plan.cells),
        ran=ran,
        failed=tuple(
            (cell.place, facts[cell.hash].get("reason", ""))
            for cell in plan.cells
            if facts[cell.hash].get("status") == "failed"
        ),
        unfinished=sum(one.get("status") == "unfinished" for one in facts.values()),
    )


def _tidy(plan: Plan, out: Path) -> None:
    """Bring back what the plan wants again, put aside what it does not, drop torn parts."""
    wanted = {cell.hash for cell in plan.cells}
    cells, aside = out / "cells", out / "unused"
    for folder in (cells, aside):
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".*.part"):
            shutil.rmtree(part)
    for path in sorted(cells.iterdir()):
        if path.name not in wanted:
            _move(path, aside)
    for path in sorted(aside.iterdir()):
        if path.name in wanted:
            _move(path, cells)


def _move(path: Path, folder: Path) -> None:
    place = folder / path.name
    if place.exists():  # the same cell: its name is a hash of all that decides it
        shutil.rmtree(place)
    path.rename(place)


def _done(out: Path, one: Pretraining) -> bool:
    return (out / "pretrain" / one.hash / "run.json").is_file()


def _status(out: Path, cell: Cell) -> str | None:
    return _cell_facts(out, cell).get("status")


def _cell_facts(out: Path, cell: Cell) -> dict[str, Any]:
    try:
        return json.loads((out / "cells" / cell.hash / "cell.json").read_bytes())
    except (OSError, ValueError):
        return {}
