"""A study from plan to judged results: pre-trainings, then cells; what is finished stays."""

import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from hounsfield.data.store import Store
from hounsfield.errors import DiskError, HounsfieldError, InterruptedRun, MachineError, OutputError
from hounsfield.files import check_space, read_object, sweep
from hounsfield.judge.results import judge
from hounsfield.lock import held
from hounsfield.study import features, leakage
from hounsfield.study.cell_folder import Ended, give_up, has_scores, read_facts
from hounsfield.study.parallel import Part, one_by_one, side_by_side
from hounsfield.study.pictures import write_pictures
from hounsfield.study.plan import Cell, Plan
from hounsfield.study.pretraining import Pretraining
from hounsfield.study.record import write_plan
from hounsfield.study.takeover import check_others, take
from hounsfield.train import checkpoint
from hounsfield.train.device import chosen
from hounsfield.train.log import bar_over
from hounsfield.train.pretrain import build
from hounsfield.train.run_folder import RUN
from hounsfield.wording import plural

SCORE_BYTES = 32  # of a row of scores besides its logits, uncompressed: row, patient, label, split
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
        machine_failed: Whether a cell failed because the machine did, not the training.
    """

    folder: Path
    cells: int
    ran: int
    failed: tuple[tuple[str, str], ...]
    unfinished: int
    machine_failed: bool


def run(plan: Plan, out: Path, *, jobs: int = 1, pretrained: Sequence[Path] = ()) -> Outcome:
    """Run all of a plan that `out` does not hold yet, and judge it.

    Args:
        plan: What to run.
        out: The study's folder; new, empty, or one that an earlier call began.
        jobs: Pre-trainings (on the CPU) and cells side by side.
        pretrained: Folders of studies whose finished pre-trainings are copied where the plan has
            the same.

    Raises:
        InputError: A folder in `pretrained` has none.
        OutputError: `out` is another study's.
        LeakError: Test images are trained on.
        BusyError: Another process is at work in `out`.
        DiskError: The disk has too little space, or is not writable.
        InterruptedRun: Stopped by the user; finished cells are kept.
    """
    check_others(pretrained)
    claim(plan, out)
    found = leakage.check(plan, out)
    with held(out):
        sweep(out, but="report")  # one may be written there meanwhile
        write_plan(plan, out, leaks=found)  # first, for it makes the folder ours
        leakage.keep(plan, out, found)
        _tidy(plan, out)
        take(pretrainings_left(plan, out), out, pretrained)
        todo = [cell for cell in plan.cells if not is_finished(out, cell)]
        broken = _pretrain(plan, out, jobs=jobs)
        for cell in todo:
            if cell.pretraining in broken:
                failed = broken[cell.pretraining]
                give_up(cell, plan, out, reason=failed.reason, exit_code=failed.exit_code)
        whole = [cell for cell in todo if cell.pretraining not in broken]
        deque(_run(plan, out, whole, of=len(plan.cells), jobs=jobs, label="cells"), maxlen=0)
        judge(out)
        _illustrate(plan, out)
    return _outcome(plan, out, ran=len(todo))


def _illustrate(plan: Plan, out: Path) -> None:
    """Draw; the study is judged already, so a picture that cannot be made is told, no more."""
    with bar_over("pictures", total=1, done=0) as progress:
        try:
            write_pictures(plan, out)
        except (DiskError, InterruptedRun):
            raise
        except (HounsfieldError, pl.exceptions.PolarsError) as error:
            progress.say(f"the report will lack pictures: {error}")
        progress.advance()


def claim(plan: Plan, out: Path) -> None:
    """Refuse an output that is not ours to write, before anything is written.

    Raises:
        OutputError: `out` is a file, another study's folder or some other folder.
        DiskError: Its disk has not the space that the study needs.
    """
    if out.is_file():
        raise OutputError(f"{out} is a file. Choose a folder.")
    if (out / "study.json").exists():
        _refuse_another(plan, out)
    elif out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        theirs = f" To take over what is in {out / 'pretrain'}, add --pretrained {out}."
        raise OutputError(
            f"{out} holds something that is no study. Choose an empty or new folder."
            + (theirs if (out / "pretrain").is_dir() else "")
        )
    check_space(out, disk_bytes(plan, out))


def _refuse_another(plan: Plan, out: Path) -> None:
    """Refuse a folder of another name, or of this name (many files are `study.toml`) on other data.

    A store may have grown or moved, but not both.
    """
    theirs = read_object(out / "study.json")
    if theirs.get("name") != plan.config.name:
        raise OutputError(
            f"{out} holds the study {theirs.get('name')!r}, not {plan.config.name!r}. Choose "
            "another folder, or give the study its name back."
        )
    known = {store["hash"] for store in theirs["stores"].values()}
    known |= set(theirs["config"]["stores"].values())
    ours = set(plan.config.stores.values())
    if not known & (ours | {Store.open(Path(path)).hash for path in ours}):
        raise OutputError(
            f"{out} holds another study of the name {plan.config.name!r}: none of its stores "
            f"({', '.join(theirs['stores'])}) is one of this study's. Choose another folder."
        )


def is_finished(out: Path, part: Pretraining | Cell) -> bool:
    """Whether `out` holds this part; a failed cell is not finished, nor one with torn scores."""
    if isinstance(part, Cell):
        return has_scores(out, part)
    return (part.place(out) / RUN).is_file()


def pretrainings_left(plan: Plan, out: Path) -> list[Pretraining]:
    """The pre-trainings that `out` does not hold finished."""
    return [one for one in plan.pretrainings.values() if not is_finished(out, one)]


def disk_bytes(plan: Plan, out: Path) -> int:
    """About what the study will still take on the disk: scores, features, checkpoints, encoders."""
    rows = sum(
        len(plan.tasks[cell.task].rows((*cell.rung.val, *cell.test)))
        * (SCORE_BYTES + 4 * len(plan.tasks[cell.task].classes))
        for cell in plan.cells
        if not is_finished(out, cell)
    )
    runs = pretrainings_left(plan, out)
    size = {one.name: _run_bytes(one) for one in runs}
    seen = features.size_bytes(plan, out)
    return rows + seen + sum(size[one.name] for one in runs) + SPARE_BYTES


def _run_bytes(one: Pretraining) -> int:
    corpus = sum(len(rows) for rows in one.rows().values())
    return checkpoint.room(build(one.config, corpus_size=corpus))


def _pretrain(plan: Plan, out: Path, *, jobs: int) -> dict[str, Ended]:
    """Run what is missing; hash -> how it failed, of those that did and whose cells then fail too.

    On the CPU they run side by side; on a GPU, or where one takes several processes itself, one
    has all of the machine.
    """
    every = plan.pretrainings
    todo = pretrainings_left(plan, out)
    small = all(
        one.config.processes == 1 and chosen(one.config.device, one.config.precision)[0] == "cpu"
        for one in todo
    )
    beside = jobs if small else 1
    broken = {}
    label = "pre-trainings" if beside > 1 else None  # alone, each shows a bar of its own
    for ended in _run(plan, out, todo, of=len(every), jobs=beside, label=label):
        if ended.status == "failed":
            reason = f"the pre-training {every[ended.part].name} failed: {ended.reason}"
            broken[ended.part] = replace(ended, reason=reason)
    return broken


def _run(
    plan: Plan, out: Path, todo: Sequence[Part], *, of: int, jobs: int, label: str | None
) -> Iterator[Ended]:
    """Run `todo`, under a bar over all `of` parts of its kind, or under their own without a label.

    Raises:
        InterruptedRun: Stopped by the user.
    """
    names = {cell.hash: cell.place for cell in plan.cells}
    names |= {one.hash: one.name for one in plan.pretrainings.values()}
    with bar_over(label if todo else None, total=of, done=of - len(todo)) as progress:
        runs = (
            one_by_one(plan, out, todo)
            if jobs == 1
            else side_by_side(plan, out, todo, jobs=jobs, bar=progress)
        )
        with closing(runs):
            try:
                for ended in runs:
                    progress.advance()
                    progress.note(f"{ended.status}: {names[ended.part]}")
                    yield ended
            except KeyboardInterrupt:
                kept = sum("status" in read_facts(out, cell) for cell in plan.cells)
                raise InterruptedRun(
                    f"stopped; kept in {out}: {kept} of {plural(len(plan.cells), 'cell')}. "
                    "Run the same command again to go on."
                ) from None


def _outcome(plan: Plan, out: Path, *, ran: int) -> Outcome:
    facts = {cell.hash: read_facts(out, cell) for cell in plan.cells}
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
        machine_failed=any(
            one.get("exit_code") == MachineError.exit_code for one in facts.values()
        ),
    )


def _tidy(plan: Plan, out: Path) -> None:
    """Bring back what the plan wants again, put aside what it does not."""
    wanted = {cell.hash for cell in plan.cells}
    cells, aside = out / "cells", out / "unused"
    for folder in (cells, aside):
        folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(cells.iterdir()):
        if path.name not in wanted:
            _move(path, aside)
    for path in sorted(aside.iterdir()):
        if path.name in wanted:
            _move(path, cells)
    features.drop_others(plan, out)


def _move(path: Path, folder: Path) -> None:
    place = folder / path.name
    if place.exists():  # the same cell: its name is a hash of all that decides it
        shutil.rmtree(place)
    path.rename(place)
