"""What a study will take and what it can see, before it runs."""

import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hounsfield.judge.answers import ALPHA
from hounsfield.judge.power import smallest_effect, typical
from hounsfield.models.backbone import create
from hounsfield.study.classifier import Classifier, predict
from hounsfield.study.config import Budget
from hounsfield.study.finetune import fair
from hounsfield.study.frozen import PROTOCOLS
from hounsfield.study.images import read
from hounsfield.study.plan import Cell, Plan
from hounsfield.study.pretraining import Pretraining
from hounsfield.study.run import disk_bytes, is_finished, pretrainings_left
from hounsfield.study.takeover import check_others, found
from hounsfield.study.trained import Labels
from hounsfield.train import schedule
from hounsfield.train.device import fabric
from hounsfield.train.log import say
from hounsfield.train.pretrain import pretrain
from hounsfield.wording import plural

FEW_STEPS, MORE_STEPS = 2, 8
LOOKED_AT = 256


@dataclass(frozen=True)
class Estimate:
    """What a plan costs and can show.

    Attributes:
        groups: Task, protocol and arms of the plan's cells, and how many cells each of them has.
        cells, cells_left: All of the plan's, and those that are not finished.
        pretrainings_left: Runs that are not finished.
        pretrainings_taken: Runs that another study has finished; they are not among those left.
        pretrain_hours, cell_hours: Of what is left, on this machine, one after the other.
        disk_bytes: Of what is left.
        patients: Test patients of the primary task.
        repeats: Of the plan.
        smallest_effect: Difference of AUC that is found with a probability of 80 %, above 1 where
            none is; NaN where the plan compares nothing.
        comparisons: In the family that shares the error rate.
        warnings: What a reader of the results will have to know.
    """

    groups: tuple[tuple[str, str, tuple[str, ...], int], ...]
    cells: int
    cells_left: int
    pretrainings_left: int
    pretrainings_taken: int
    pretrain_hours: float
    cell_hours: float
    disk_bytes: int
    patients: int
    repeats: int
    smallest_effect: float
    comparisons: int
    warnings: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The estimate in words."""
        yield f"cells: {self.cells}, of which {self.cells_left} are left"
        for task, protocol, arms, each in self.groups:
            yield f"  {task}, {protocol}: {', '.join(arms)}; {plural(each, 'cell')} each"
        yield f"pre-trainings left: {self.pretrainings_left}"
        if self.pretrainings_taken:
            yield f"pre-trainings to take over: {self.pretrainings_taken}"
        yield (
            f"time left: about {_in_words(self.pretrain_hours + self.cell_hours)} on this machine, "
            f"one after the other ({_in_words(self.pretrain_hours)} to pre-train, "
            f"{_in_words(self.cell_hours)} for cells)"
        )
        yield f"disk: about {self.disk_bytes / 2**30:.1f} GiB"
        yield self._visible()
        for warning in self.warnings:
            yield f"note: {warning}"

    def _visible(self) -> str:
        if math.isnan(self.smallest_effect):
            return "smallest visible effect: nothing is compared"
        effect = f"a difference of AUC of about {self.smallest_effect:.2f}"
        return (
            f"smallest visible effect: {effect if self.smallest_effect <= 1 else 'none whatever'} "
            f"(found 4 times in 5 with {plural(self.patients, 'test patient')}, "
            f"{plural(self.repeats, 'repeat')} and {plural(self.comparisons, 'comparison')}, if "
            "scores vary as in our simulated studies at AUC 0.80; `hounsfield power` tells it from "
            "a finished study)"
        )


def estimate(plan: Plan, out: Path, *, pretrained: Sequence[Path] = ()) -> Estimate:
    """Time a few steps on this machine and multiply; nothing is written to `out`.

    Args:
        plan: What would run.
        out: The study's folder.
        pretrained: Folders of studies whose finished pre-trainings would be copied.

    Raises:
        InputError: A folder in `pretrained` has none.
    """
    check_others(pretrained)
    missing = pretrainings_left(plan, out)
    runs = [one for one in missing if found(one, pretrained, say=say) is None]
    left = [cell for cell in plan.cells if not is_finished(out, cell)]
    task = plan.primary.task if plan.primary else next(iter(plan.tasks))
    patients = len({p for (of, _), split in plan.splits.items() if of == task for p in split.test})
    comparisons = len(plan.primary.family) if plan.primary else 0
    return Estimate(
        groups=tuple(_groups(plan)),
        cells=len(plan.cells),
        cells_left=len(left),
        pretrainings_left=len(runs),
        pretrainings_taken=len(missing) - len(runs),
        pretrain_hours=_pretrain_seconds(runs) / 3600,
        cell_hours=sum(_cell_seconds(plan, left)) / 3600,
        disk_bytes=disk_bytes(plan, out),
        patients=patients,
        repeats=plan.config.repeats,
        smallest_effect=visible(
            patients, plan.config.repeats, comparisons, folds=max(plan.config.folds, 1)
        ),
        comparisons=comparisons,
        warnings=plan.warnings,
    )


def visible(patients: int, repeats: int, comparisons: int, *, folds: int = 1) -> float:
    """The smallest difference of AUC that is found with a probability of 80 %.

    Args:
        patients: Test patients.
        repeats: Of the plan.
        comparisons: That share the error rate; the worst case of Holm's procedure is planned for.
        folds: Of the cross-validation, 1 for a fixed test set.
    """
    if not comparisons or patients < 2:
        return float("nan")
    usual = typical(folds=folds)
    return float(
        smallest_effect(usual, patients=patients, repeats=repeats, alpha=ALPHA / comparisons)
    )


def _groups(plan: Plan) -> Iterator[tuple[str, str, tuple[str, ...], int]]:
    cells = Counter((cell.task, cell.protocol, cell.arm) for cell in plan.cells)
    groups: dict[tuple[str, str, int], list[str]] = {}
    for (task, protocol, arm), each in cells.items():
        groups.setdefault((task, protocol, each), []).append(arm)
    for (task, protocol, each), arms in groups.items():
        yield task, protocol, tuple(arms), each


def _in_words(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 2 else plural(math.ceil(60 * hours), "minute")


def _pretrain_seconds(runs: list[Pretraining]) -> float:
    """Of these runs; one of each name is tried, because the others differ in patients alone."""
    pace: dict[str, float] = {}
    seconds = 0.0
    for run in runs:
        if run.config.budget.hours is not None:
            seconds += 3600 * run.config.budget.hours
            continue
        rows = run.rows()
        images = run.config.batch_size * run.config.loop.accumulate
        if run.name not in pace:
            short = run.config.model_copy(update={"budget": schedule.Budget(steps=FEW_STEPS)})
            with tempfile.TemporaryDirectory() as folder:
                pace[run.name] = images / pretrain(short, Path(folder), rows=rows).images_per_s
        pool = sum(len(part) for part in rows.values())
        steps = schedule.steps_of(run.config.budget, steps_per_epoch=pool / images)
        seconds += pace[run.name] * (steps or 0)
    return seconds


def _cell_seconds(plan: Plan, cells: list[Cell]) -> Iterator[float]:
    """Of each cell: training, and looking at validation and test."""
    if not cells:
        return
    training, looking = _pace(plan, cells[0])
    looked: set[tuple[str, str, int, int]] = set()
    for cell in cells:
        task, config = plan.tasks[cell.task], plan.config
        val, judged = len(task.rows(cell.rung.val)), len(task.rows(cell.test))
        if cell.kind == "predictions":
            yield 0.0
        elif cell.kind == "control" or cell.protocol in PROTOCOLS:
            start = (cell.task, cell.arm, cell.fold, cell.repeat)
            yield 0.0 if start in looked else looking * len(task.images)
            looked.add(start)
        elif cell.protocol == "paper":
            shown = config.paper.epochs * len(task.rows(cell.rung.train))
            yield training * shown + looking * (config.paper.epochs * val + judged)
        else:
            budget = config.budget
            shown = budget.steps * budget.batch
            yield len(budget.rates) * (training * shown + looking * budget.looks * val) + (
                looking * judged
            )


def _pace(plan: Plan, cell: Cell) -> tuple[float, float]:
    """Seconds to train on an image, and to look at one."""
    task, config = plan.tasks[cell.task], plan.config
    images = read(task, fabric(config.device).device)
    few = np.arange(min(len(task.images), LOOKED_AT))
    labels = Labels(
        train=task.rows(cell.rung.train), val=few[:0], test=few[:0],
        val_score=lambda _: None, enough=False, some=False,
    )  # fmt: skip

    def train(steps: int) -> float:
        budget = Budget(steps=steps, batch=config.budget.batch, lr=config.budget.rates[0])
        began = time.perf_counter()
        fair(
            lambda: create(config.backbone), images, labels,
            classes=len(task.classes), size=config.image_size, budget=budget, layer_decay=1.0,
            seed=0, on=fabric(config.device),
        )  # fmt: skip
        return time.perf_counter() - began

    train(1)  # what a process does once
    slope = (train(FEW_STEPS + MORE_STEPS) - train(FEW_STEPS)) / MORE_STEPS
    model = Classifier(create(config.backbone), len(task.classes)).to(images.pixels.device)
    began = time.perf_counter()
    predict(model, images, few, size=config.image_size)
    looking = (time.perf_counter() - began) / len(few)
    return max(slope, 0.0) / config.budget.batch, looking
