"""`finetune`: one classifier for keeps, trained as a study's cell is, calibrated, written whole."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import torch
from pydantic import Field, PositiveInt

from hounsfield.classify.facts import N_PATIENTS, facts_of
from hounsfield.classify.kept import Kept, save
from hounsfield.config import Config
from hounsfield.data.split import Split, hold_out, missing_classes
from hounsfield.data.store import Store
from hounsfield.data.window import Window, ends_of
from hounsfield.encoder import DEFAULT_WINDOW, Encoder, load_encoder
from hounsfield.errors import LabelError, TrainingError
from hounsfield.files import disk_errors, write_json
from hounsfield.judge.declared import SCRATCH
from hounsfield.lock import new_folder
from hounsfield.models.backbone import create
from hounsfield.models.weights_source import Card
from hounsfield.provenance import machine, origin
from hounsfield.seeding import seed_of, stream
from hounsfield.study import images as store_images
from hounsfield.study import scores
from hounsfield.study.classifier import Classifier
from hounsfield.study.config import Budget
from hounsfield.study.finetune import fair
from hounsfield.study.task import Bounds, Pooling, Task, TaskConfig, load
from hounsfield.study.task import Level as TaskLevel
from hounsfield.study.trained import Trained, labels_of
from hounsfield.train.device import DeviceName, fabric
from hounsfield.wording import plural


class FinetuneConfig(Config):
    """What decides a classifier.

    Attributes:
        weights: "scratch", "imagenet", a run, a file or a hub id.
        store: A folder that `ingest` made.
        task: The label column.
        level: What carries one label: a slice, a series or a patient.
        where: Column -> value, list of values, or `{ min, max }`: only these images take part.
        pool: How the scores of a series' or a patient's slices become one.
        backbone: None takes what the weights are of; resnet50 from scratch.
        image_size: Pixels of what the network sees; None takes what the weights were trained
            with, or the store's.
        window: In HU: a name, or low and high; None takes what the weights were trained with, or
            the wide one.
        val_share: Share of the training patients that choose and calibrate, where the store's
            split names none.
        budget: As of a study's cell.
        seed: Decides all chance.
        device: Where to compute.
    """

    weights: str
    store: str
    task: str
    level: TaskLevel = "slice"
    where: dict[str, Bounds | list[str | int | float] | str | int | float | bool] = Field(
        default_factory=dict
    )
    pool: Pooling = "mean_logit"
    backbone: str | None = None
    image_size: PositiveInt | None = None
    window: str | tuple[float, float] | None = None
    val_share: float = Field(default=0.2, gt=0, lt=1)
    budget: Budget = Budget()
    seed: int = 0
    device: DeviceName = "auto"


@dataclass(frozen=True)
class Finetuned:
    """A classifier that was trained.

    Attributes:
        folder: Where it lies.
        kept: The classifier.
        notes: What its user must know.
    """

    folder: Path
    kept: Kept
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The outcome for a reader, a fact a line."""
        facts = self.kept.facts
        lines = [
            f"{part}, by {level}: "
            + ", ".join(
                f"{name} {value:.3f}"
                for name, value in sorted(values.items())
                if name != N_PATIENTS
            )
            + f" ({plural(int(values[N_PATIENTS]), 'patient')})"
            for part, levels in facts.metrics.items()
            for level, values in levels.items()
        ]
        return [f"Classifier: {self.folder}", *lines, *(f"Note: {note}" for note in self.notes)]


def finetune(config: FinetuneConfig, out: Path) -> Finetuned:
    """Train a classifier and write it into the new folder `out`.

    Patients whom the store's split calls test are not trained on: they score the classifier in
    the end. Without a split all patients take part, and a share of them chooses and calibrates.

    Raises:
        OutputError: `out` exists.
        WeightsError, StoreError, ConfigError, LabelError, LeakError: What was given does not fit.
        TrainingError: The training diverged, or learnt next to nothing.
    """
    with new_folder(out) as folder:
        store = Store.open(config.store)
        task = _task(config)
        split = _split(task, config)
        encoder = _start(config, store)
        encoder.backbone.check_size(encoder.image_size)
        on = fabric(config.device)
        images = store_images.read(task, on.device)
        images = replace(images, window=Window(*encoder.window_hu))
        labels = labels_of(task, split)
        trained = fair(
            lambda: copy.deepcopy(encoder.backbone),
            images,
            labels,
            classes=len(task.classes),
            size=encoder.image_size,
            budget=config.budget,
            layer_decay=1.0 if config.weights == SCRATCH else config.budget.layer_decay,
            seed=seed_of(config.seed, "finetune"),
            on=on,
        )
        if trained.unfinished:
            raise TrainingError(f"{trained.unfinished}. Nothing was written.")
        facts, notes = facts_of(task, store, encoder, split, trained)
        kept = Kept(
            replace(encoder, backbone=_network(trained).backbone.cpu().eval()),
            _network(trained).head.cpu().eval(),
            facts,
        )
        save(kept, folder)
        _write(folder, config, task, trained, split)
    return Finetuned(out, kept, notes)


def _task(config: FinetuneConfig) -> Task:
    settings = TaskConfig(
        store="store", label=config.task, level=config.level, where=config.where, pool=config.pool
    )
    return load(config.task, settings, {"store": Path(config.store)})


def _split(task: Task, config: FinetuneConfig) -> Split:
    """Who trains, who chooses, who judges.

    Raises:
        LabelError: The training patients lack a class.
    """
    carried = task.strata()
    if task.inside["split"].null_count() == len(task.inside):
        split = Split(tuple(carried), (), ())
    else:
        split = task.given_split()
    if not split.val:
        split = hold_out(
            split, carried, share=config.val_share, stream=stream(config.seed, "hold out")
        )
    missing = missing_classes(split.train, carried)
    if missing:
        names = ", ".join(repr(task.classes[label]) for label in sorted(missing))
        raise LabelError(
            f"no training patient carries {names} of {config.task!r}. Label more patients, or "
            "change the split."
        )
    return split


def _start(config: FinetuneConfig, store: Store) -> Encoder:
    """The backbone to start from, with its input; the store's size where nothing else is known."""
    if config.weights != SCRATCH:
        return load_encoder(
            config.weights,
            backbone=config.backbone,
            image_size=config.image_size,
            window=config.window,
            default_size=store.size,
        )
    window_hu = ends_of(config.window or DEFAULT_WINDOW)
    backbone = create(config.backbone or "resnet50", seed=seed_of(config.seed, "backbone"))
    card = Card(source=SCRATCH, file="", sha256="", origin=SCRATCH, backbone=backbone.name)
    return Encoder(backbone, card, config.image_size or store.size, window_hu)


def _network(trained: Trained) -> Classifier:
    if trained.model is None:
        raise TypeError("the protocol kept no network")
    return trained.model


def _write(
    folder: Path, config: FinetuneConfig, task: Task, trained: Trained, split: Split
) -> None:
    """Settings, scores and curve beside the classifier, for whoever wants to look again."""
    write_json(
        folder / "config.json",
        {
            **origin(),
            "torch": torch.__version__,
            "machine": machine(),
            "config": config.model_dump(mode="json"),
            "task_hash": task.hash,
        },
    )
    tables = [
        scores.table(task, task.rows(split.val), trained.val, split="val"),
        scores.table(task, task.rows(split.test), trained.test, split="test"),
    ]
    with disk_errors(folder):
        pl.concat(tables).write_parquet(folder / "scores.parquet")
        curve = pl.DataFrame(trained.curve, infer_schema_length=None)
        curve.write_parquet(folder / "curve.parquet")
    write_json(folder / "run.json", {**origin(), "done": True, **trained.facts})
