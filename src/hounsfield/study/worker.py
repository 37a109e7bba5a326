"""One process's share of a study: pre-trainings, and cells from images that it keeps in memory."""

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hounsfield.array_file import kept
from hounsfield.data.split import Split
from hounsfield.errors import DiskError, HounsfieldError, InterruptedRun, TrainingError
from hounsfield.models.backbone import Backbone
from hounsfield.study import cell_folder, features, predictions
from hounsfield.study import images as store_images
from hounsfield.study.cell_folder import Ended, tables_of
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
from hounsfield.study.trained import Labels, Trained, labels_of
from hounsfield.train.device import fabric, kind_of
from hounsfield.train.pretrain import pretrain

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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

    def _pretrain(self, one: Pretraining) -> Ended:
        started = time.perf_counter()
        status, reason, code = "done", "", 0
        try:
            pretrain(one.config, one.place(self.folder), rows=one.rows())
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
            tables = tables_of(self.plan.tasks[cell.task], self.labels(cell), trained)
            status, reason = ("unfinished" if trained.unfinished else "done"), trained.unfinished
        except (DiskError, InterruptedRun):
            raise
        except Exception as error:
            reason, code = _told(error)
        wall_s, device = time.perf_counter() - started, kind_of(self.fabric.device)
        ended = Ended(cell.hash, status, reason, wall_s, code, device)
        cell_folder.write(cell, self.plan, self.folder, ended, trained, tables)
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
        return kept(features.place(cell, self.folder), lambda: self._look(cell))

    def _look(self, cell: Cell) -> NDArray[np.float32]:
        images = self.images(cell.task)
        if cell.arm == HISTOGRAM:
            return histogram(images)
        backbone = self.start(cell)().to(self.fabric.device)
        everything = np.arange(len(images.labels))
        return embed(backbone, images, everything, size=self.plan.config.image_size)


def _told(error: Exception) -> tuple[str, int]:
    """The reason and the exit code of a part that failed."""
    if isinstance(error, HounsfieldError):
        return str(error), error.exit_code
    return f"{type(error).__name__}: {error}", TrainingError.exit_code
