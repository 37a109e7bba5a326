"""One process's share of a study: pre-trainings, and cells from images that it keeps in memory."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from hounsfield.data.split import Split, strata
from hounsfield.errors import DiskError, HounsfieldError, InterruptedRun, TrainingError
from hounsfield.files import disk_errors, folder_whole, write_json
from hounsfield.models.backbone import Backbone
from hounsfield.provenance import origin
from hounsfield.study import features, predictions, scores
from hounsfield.study import images as store_images
from hounsfield.study.classifier import embed
from hounsfield.study.config import HISTOGRAM, POSITION
from hounsfield.study.controls import histogram, position
from hounsfield.study.finetune import fair
from hounsfield.study.frozen import PROTOCOLS, linear
from hounsfield.study.images import Images
from hounsfield.study.paper import paper
from hounsfield.study.plan import TRANSFERRED, Cell, Plan
from hounsfield.study.pretraining import Pretraining
from hounsfield.study.start import backbone_of
from hounsfield.study.task import Task
from hounsfield.study.trained import ENOUGH, Labels, Trained
from hounsfield.train.device import fabric, kind_of
from hounsfield.train.pretrain import pretrain

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Ended:
    """How a cell or a pre-training, named by its hash, ended.

    Attributes:
        part: The hash.
        status: done, unfinished or failed.
        reason: Why, where it is not done.
        wall_s: Seconds that it took.
        exit_code: What a failure gives.
        device: What a cell ran on; empty where it never ran.
    """

    part: str
    status: str
    reason: str
    wall_s: float
    exit_code: int = 0
    device: str = ""


class Worker:
    """Runs the parts of a plan, one after another, into the study's folder."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self._images: dict[str, Images] = {}

    @cached_property
    def fabric(self) -> "Fabric":
        """The device and the precision of all cells."""
        return fabric(self.plan.config.device)

    def images(self, task: str) -> Images:
        """The images of a task, read when they are first asked for."""
        if task not in self._images:
            self._images[task] = store_images.read(self.plan.tasks[task], self.fabric.device)
        return self._images[task]

    def run(self, part: Pretraining | Cell) -> Ended:
        """Run a pre-training or a cell into its folder; a failed cell is written there too.

        Whatever else goes wrong costs this part alone, and is told with how it ended.

        Raises:
            DiskError: The folder cannot be written.
            InterruptedRun: The user stopped the work.
        """
        return self._pretrain(part) if isinstance(part, Pretraining) else self._run(part)

    def give_up(self, part: Pretraining | Cell, reason: str, *, exit_code: int) -> Ended:
        """A part that failed elsewhere; of a cell, the folder is written."""
        ended = Ended(part.hash, "failed", reason, 0.0, exit_code)
        if isinstance(part, Cell):
            self._write(part, ended, None, {})
        return ended

    def _pretrain(self, one: Pretraining) -> Ended:
        started = time.perf_counter()
        status, reason, code = "done", "", 0
        try:
            pretrain(one.config, self.folder / "pretrain" / one.hash, rows=one.rows())
        except (DiskError, InterruptedRun):
            raise
        except Exception as error:
            status, (reason, code) = "failed", _told(error)
        return Ended(one.hash, status, reason, time.perf_counter() - started, code)

    def _run(self, cell: Cell) -> Ended:
        started = time.perf_counter()
        trained: Trained | None = None
        tables: Mapping[str, pl.DataFrame] = {}
        status, reason, code = "failed", "", 0
        try:
            trained = self.train(cell)
            tables = self._tables(cell, trained)
            status, reason = ("unfinished" if trained.unfinished else "done"), trained.unfinished
        except (DiskError, InterruptedRun):
            raise
        except Exception as error:
            reason, code = _told(error)
        wall_s, device = time.perf_counter() - started, kind_of(self.fabric.device)
        ended = Ended(cell.hash, status, reason, wall_s, code, device)
        self._write(cell, ended, trained, tables)
        return ended

    def labels(self, cell: Cell) -> Labels:
        """The cell's labels as places in the task's images."""
        split = Split(cell.rung.train, cell.rung.val, cell.test)
        return labels_of(self.plan.tasks[cell.task], split)

    def start(self, cell: Cell) -> Callable[[], Backbone]:
        """A maker of fresh copies of the arm's backbone."""
        return backbone_of(cell, self.plan.config, self.folder)

    def train(self, cell: Cell) -> Trained:
        """What the cell's protocol gives; nothing is written."""
        task, config, labels = self.plan.tasks[cell.task], self.plan.config, self.labels(cell)
        classes, truth = len(task.classes), task.images["label"].to_numpy().astype(np.int64)
        if cell.kind == "predictions":
            table = predictions.read(Path(config.predictions[cell.arm]))
            here = {name: getattr(cell, name) for name in predictions.PLACES}
            rows = predictions.of_cell(table, **here)
            return predictions.scores(rows, task, val=labels.val, test=labels.test)
        if cell.kind == "control":
            return linear(self._features(cell), truth, labels, classes=classes)
        if cell.protocol in PROTOCOLS:
            return PROTOCOLS[cell.protocol](self._features(cell), truth, labels, classes=classes)
        shared: dict[str, Any] = {
            "classes": classes,
            "size": config.image_size,
            "seed": cell.seed,
            "on": self.fabric,
        }
        start, images = self.start(cell), self.images(cell.task)
        if cell.protocol == "paper":
            flip = task.name not in config.paper.no_flip
            return paper(start, images, labels, settings=config.paper, flip=flip, **shared)
        decay = config.budget.layer_decay if cell.kind in TRANSFERRED else 1.0
        view = "supervised_sided" if task.config.sided else "supervised"
        return fair(
            start, images, labels, budget=config.budget, layer_decay=decay, view=view, **shared
        )

    def _features(self, cell: Cell) -> NDArray[np.float32]:
        """Features of all of the task's images."""
        if cell.arm == POSITION:
            return position(self.plan.tasks[cell.task])
        return features.kept(features.place(cell, self.folder), lambda: self._look(cell))

    def _look(self, cell: Cell) -> NDArray[np.float32]:
        images = self.images(cell.task)
        if cell.arm == HISTOGRAM:
            return histogram(images)
        backbone = self.start(cell)().to(self.fabric.device)
        everything = np.arange(len(images.labels))
        return embed(backbone, images, everything, size=self.plan.config.image_size)

    def _tables(self, cell: Cell, trained: Trained) -> Mapping[str, pl.DataFrame]:
        task, labels = self.plan.tasks[cell.task], self.labels(cell)
        places = labels.val[: len(trained.val)]  # somebody else's scores may be of test alone
        val = scores.table(task, places, trained.val, split="val")
        test = scores.table(task, labels.test, trained.test, split="test")
        both = pl.concat([val, test])
        bad = both.filter(~pl.all_horizontal(pl.col("^logit_.*$").is_finite()))
        if len(bad):
            raise HounsfieldError(f"{len(bad)} of {len(both)} scores are not finite numbers.")
        curve = pl.DataFrame(trained.curve, infer_schema_length=None)
        return {"scores": both, "curve": curve} if trained.curve else {"scores": both}

    def _write(
        self,
        cell: Cell,
        ended: Ended,
        trained: Trained | None,
        tables: Mapping[str, pl.DataFrame],
    ) -> None:
        place = self.folder / "cells" / cell.hash
        if place.exists():  # it failed before
            shutil.rmtree(place)
        with folder_whole(place) as folder, disk_errors(place):
            for name, rows in tables.items():
                rows.write_parquet(folder / f"{name}.parquet")
            write_json(folder / "cell.json", _facts(cell, self.plan, ended, trained))


def _told(error: Exception) -> tuple[str, int]:
    """The reason and the exit code of a part that failed."""
    if isinstance(error, HounsfieldError):
        return str(error), error.exit_code
    return f"{type(error).__name__}: {error}", TrainingError.exit_code


def labels_of(task: Task, split: Split) -> Labels:
    """The labels of the split's patients as places in the task's images."""
    val = task.rows(split.val)
    fewest = _fewest_patients(task, val)
    classes, enough = len(task.classes), fewest >= ENOUGH

    def val_score(logits: NDArray[np.float32]) -> scores.Score | None:
        rows = scores.table(task, val, logits, split="val")
        return scores.choice(rows, classes=classes, enough=enough)

    return Labels(
        train=task.rows(split.train),
        val=val,
        test=task.rows(split.test),
        val_score=val_score,
        enough=enough,
        some=fewest >= 1,
    )


def _facts(cell: Cell, plan: Plan, ended: Ended, trained: Trained | None) -> dict[str, Any]:
    task = plan.tasks[cell.task]
    labels = task.images["label"].to_numpy()[task.rows(cell.rung.train)]
    return {
        "hash": cell.hash,
        "arm": cell.arm,
        "task": cell.task,
        "protocol": cell.protocol,
        "fraction": cell.fraction,
        "repeat": cell.repeat,
        "fold": cell.fold,
        "status": ended.status,
        "reason": ended.reason,
        "exit_code": ended.exit_code,
        "wall_s": round(ended.wall_s, 3),
        "threads": torch.get_num_threads(),  # they decide in which order sums are rounded
        "device": ended.device,
        "seed": cell.seed,
        "n_train_patients": len(cell.rung.train),
        "n_train_images": len(labels),
        "n_train_images_by_class": np.bincount(labels, minlength=len(task.classes)).tolist(),
        "n_val_patients": len(cell.rung.val),
        "pretrain_hash": cell.pretraining,
        **(trained.facts if trained else {}),
        "settings": cell.settings,
        **origin(),
    }


def _fewest_patients(task: Task, places: NDArray[np.int64]) -> int:
    """Patients of the class that has fewest of them at `places`."""
    rows = task.images[places.tolist()]
    carried = strata(rows["patient"].to_list(), rows["label"].to_list()).values()
    return min(sum(label in c for c in carried) for label in range(len(task.classes)))
