"""`finetune`: one classifier for keeps, trained as a study's cell is, calibrated, written whole."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from hounsfield.classify.calibrate import Calibration, calibrate, log_loss, shares_of
from hounsfield.classify.kept import Facts, Kept, save
from hounsfield.classify.units import LEVELS, Level, Units, units_of
from hounsfield.config import Config
from hounsfield.data.split import Split, hold_out, missing_classes
from hounsfield.data.store import Store
from hounsfield.data.window import Window, ends_of
from hounsfield.encoder import DEFAULT_WINDOW, Encoder, load_encoder
from hounsfield.errors import LabelError, TrainingError
from hounsfield.files import disk_errors, write_json
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
from hounsfield.study.scores import macro_auc
from hounsfield.study.task import Bounds, Pooling, Task, TaskConfig, load
from hounsfield.study.task import Level as TaskLevel
from hounsfield.study.trained import ENOUGH, Trained, labels_of
from hounsfield.train.device import DeviceName, fabric
from hounsfield.wording import plural

SCRATCH = "scratch"
PARTS = ("train", "val", "test")
N = "n_patients"


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
                f"{name} {value:.3f}" for name, value in sorted(values.items()) if name != N
            )
            + f" ({plural(int(values[N]), 'patient')})"
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
        notes: list[str] = []
        kept = Kept(
            replace(encoder, backbone=_network(trained).backbone.cpu().eval()),
            _network(trained).head.cpu().eval(),
            _facts(task, store, encoder, split, trained, notes),
        )
        save(kept, folder)
        _write(folder, config, task, trained, split)
    return Finetuned(out, kept, tuple(notes))


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


def _facts(
    task: Task,
    store: Store,
    encoder: Encoder,
    split: Split,
    trained: Trained,
    notes: list[str],
) -> Facts:
    """What the classifier shall know of itself; `notes` takes what its user must know."""
    places = {part: task.rows(getattr(split, part)) for part in PARTS}
    units = {part: units_of(task, rows) for part, rows in places.items()}
    calibration = _calibrations(task, units, trained.val, notes)
    seen = store.index[task.images[places["train"].tolist()]["slice"].to_list()]
    spacing = seen.select("spacing_y_mm", "spacing_x_mm").unpivot()["value"].drop_nulls()
    return Facts(
        task=task.name,
        classes=task.classes,
        level=task.config.level,
        pool=task.config.pool,
        slice_size=store.size,
        grid_mm=store.facts.spacing_mm,
        crop=store.facts.crop,
        spacing_mm=(float(spacing.min()), float(spacing.max())) if len(spacing) else None,
        units=tuple(sorted(seen["units"].unique())),
        calibration=calibration,
        stores=tuple(dict.fromkeys([*encoder.card.stores, store.hash])),
        patients={part: len(getattr(split, part)) for part in PARTS},
        images={part: len(rows) for part, rows in places.items()},
        metrics={
            part: _metrics(task, units[part], logits, calibration)
            for part, logits in (("val", trained.val), ("test", trained.test))
            if len(logits)
        },
        weights=_without_places(encoder.card),
    )


def _calibrations(
    task: Task,
    units: Mapping[str, Mapping[Level, Units]],
    val_logits: NDArray[np.float32],
    notes: list[str],
) -> dict[Level, Calibration]:
    """A calibration for each level at which every class has enough validation patients."""
    found: dict[Level, Calibration] = {}
    for level in LEVELS:
        train, val = units["train"].get(level), units["val"].get(level)
        if train is None or val is None:
            notes.append(f"probabilities by {level} are not calibrated: no labels by {level}")
            continue
        fewest = min(val.patients_of(label) for label in range(len(task.classes)))
        if fewest < ENOUGH:
            notes.append(
                f"probabilities by {level} are not calibrated: a class has {fewest} validation "
                f"patients and needs {ENOUGH}"
            )
            continue
        logits = val.pooled(val_logits, task.config.pool)
        found[level] = calibrate(logits, val, shares_of(train, len(task.classes)))
    return found


def _metrics(
    task: Task,
    units: Mapping[Level, Units],
    logits: NDArray[np.float32],
    calibration: Mapping[Level, Calibration],
) -> dict[str, dict[str, float]]:
    """Level -> AUC where every class is there, log loss where it is calibrated, and patients."""
    found: dict[str, dict[str, float]] = {}
    for level, own in units.items():
        pooled = own.pooled(logits, task.config.pool)
        values: dict[str, float] = {N: len(set(own.patients))}
        if len(np.unique(own.labels)) == len(task.classes):
            values["auc"] = macro_auc(pooled, own.labels)
        if level in calibration:
            values["log_loss"] = log_loss(calibration[level].log_probabilities(pooled), own)
        found[level] = values
    return found


def _without_places(card: Card) -> dict[str, Any]:
    """The card as plain values, without the folders of this machine."""
    hub_or_word = card.source if card.origin.startswith(("Hugging", SCRATCH)) else card.file
    return {**card.to_json(), "source": hub_or_word}


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
