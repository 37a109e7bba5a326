"""`finetune`: one classifier for keeps, trained as a study's cell is, and calibrated."""

import copy
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field, PositiveInt

from hounsfield.classify.facts import N_PATIENTS, facts_of
from hounsfield.classify.kept import Kept, save
from hounsfield.classify.kept import load as load_kept
from hounsfield.config import Config
from hounsfield.data.split import Split, hold_out, missing_classes
from hounsfield.data.store import Store
from hounsfield.data.window import Window, ends_of
from hounsfield.encoder import DEFAULT_WINDOW, Encoder, load_encoder
from hounsfield.errors import LabelError, TrainingError
from hounsfield.files import check_space, read_object, sweep, write_json, write_parquet
from hounsfield.judge.declared import SCRATCH
from hounsfield.lock import held
from hounsfield.models.backbone import create
from hounsfield.models.weights_source import Card
from hounsfield.provenance import origin
from hounsfield.seeding import seed_of, stream
from hounsfield.study import images as store_images
from hounsfield.study import scores
from hounsfield.study.classifier import Classifier
from hounsfield.study.config import Budget
from hounsfield.study.finetune import fair, layer_factors
from hounsfield.study.task import Bounds, Pooling, Task, TaskConfig, load
from hounsfield.study.task import Level as TaskLevel
from hounsfield.study.trained import Trained, labels_of
from hounsfield.train import checkpoint, run_folder
from hounsfield.train.device import DeviceName, fabric
from hounsfield.train.run_folder import CONFIG, RUN
from hounsfield.train.training import CHECKPOINTS
from hounsfield.wording import plural

TRIALS = "trials"  # where the learning rates are trained; goes when one of them is kept


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
    """Train a classifier into the folder `out`; go on where an earlier start was cut off.

    Patients whom the store's split calls test are not trained on: they score the classifier in
    the end. Without a split all patients take part, and a share of them chooses and calibrates.

    Args:
        config: All that decides the outcome.
        out: The run's folder: `config.json`, `trials/` with the state of every learning rate while
            it is trained, and in the end the classifier, `scores.parquet`, `curve.parquet` and
            `run.json`.

    Raises:
        OutputError: `out` holds a run of another configuration, of another store or other weights.
        BusyError: Another process is at work in `out`.
        WeightsError, StoreError, ConfigError, LabelError, LeakError: What was given does not fit.
        TrainingError: The training diverged, or learnt next to nothing.
        InterruptedRun: Stopped by the user; the same command goes on.
    """
    with held(out):
        store = Store.open(config.store)
        task = _task(config)
        split = _split(task, config)
        encoder = _start(config, store)
        identity = _identity(config, store, encoder)
        run_folder.refuse_others(out, identity)
        sweep(out)
        if not (out / RUN).exists():
            _refuse_now(config, encoder, out)
            run_folder.claim(out, config, identity)
            trained = _train(config, task, split, encoder, out)
            _leave(out, task, store, split, encoder, trained)
        shutil.rmtree(out / TRIALS, ignore_errors=True)
        return Finetuned(out, load_kept(out), tuple(read_object(out / RUN)["notes"]))


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


def _identity(config: FinetuneConfig, store: Store, encoder: Encoder) -> dict[str, Any]:
    """All that decides the outcome, plain: where store and weights lie does not."""
    values = config.model_dump(mode="json", exclude={"device"})
    content = {"store": store.hash, "weights": encoder.card.sha256 or SCRATCH}
    return {**values, **content}


def _refuse_now(config: FinetuneConfig, encoder: Encoder, out: Path) -> None:
    """Refuse what the training would refuse later.

    Raises:
        ConfigError: The image size or the layers' rates do not fit the backbone.
        DiskError: The disk has no room for the checkpoints.
    """
    encoder.backbone.check_size(encoder.image_size)
    layer_factors(encoder.backbone, _layer_decay(config))
    taken = sum(checkpoint.taken(path) for path in (out / TRIALS).glob(f"*/{CHECKPOINTS}"))
    shares = checkpoint.SHARES + 1  # the best look's weights are kept beside the last ones
    room = checkpoint.room(encoder.backbone, shares=shares)
    check_space(out, len(config.budget.rates) * room - taken)


def _train(
    config: FinetuneConfig, task: Task, split: Split, encoder: Encoder, out: Path
) -> Trained:
    """The best of the trainings.

    Raises:
        TrainingError: All went wrong. The same command would again, so the folder is let go.
    """
    on = fabric(config.device)
    images = store_images.read(task, on.device)
    try:
        trained = fair(
            lambda: copy.deepcopy(encoder.backbone),
            replace(images, window=Window(*encoder.window_hu)),
            labels_of(task, split),
            classes=len(task.classes),
            size=encoder.image_size,
            budget=config.budget,
            layer_decay=_layer_decay(config),
            seed=seed_of(config.seed, "finetune"),
            on=on,
            folder=out / TRIALS,
        )
        if trained.unfinished:
            raise TrainingError(f"{trained.unfinished}. Nothing is kept.")
    except TrainingError:
        shutil.rmtree(out / TRIALS)
        (out / CONFIG).unlink()
        raise
    return trained


def _layer_decay(config: FinetuneConfig) -> float:
    return 1.0 if config.weights == SCRATCH else config.budget.layer_decay


def _network(trained: Trained) -> Classifier:
    if trained.model is None:
        raise TypeError("the protocol kept no network")
    return trained.model


def _leave(
    out: Path, task: Task, store: Store, split: Split, encoder: Encoder, trained: Trained
) -> None:
    """Write the classifier, its scores and its curve, then `run.json`: all is there."""
    facts, notes = facts_of(task, store, encoder, split, trained)
    network = _network(trained).cpu().eval()
    save(Kept(replace(encoder, backbone=network.backbone), network.head, facts), out)
    tables = [
        scores.table(task, task.rows(split.val), trained.val, split="val"),
        scores.table(task, task.rows(split.test), trained.test, split="test"),
    ]
    write_parquet(out / "scores.parquet", pl.concat(tables))
    write_parquet(out / "curve.parquet", pl.DataFrame(trained.curve, infer_schema_length=None))
    write_json(out / RUN, {**origin(), "done": True, **trained.facts, "notes": notes})
