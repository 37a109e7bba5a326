"""study.toml -> tasks, splits, ladders, pre-trainings and cells, each named by its hash.

A hash covers all that decides a result and nothing else: change a setting, and only the cells
that it touches get new names; the others are found finished.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hounsfield.config import parse
from hounsfield.data import split as sp
from hounsfield.data.split import Split
from hounsfield.data.store import Store
from hounsfield.errors import ConfigError, LabelError, one_of
from hounsfield.models.backbone import create
from hounsfield.models.weights_source import Card
from hounsfield.seeding import seed_of, stream
from hounsfield.study.cards import cards_of, doubts
from hounsfield.study.config import CONTROLS, IMAGENET, POSITION, SCRATCH, Primary, StudyConfig
from hounsfield.study.controls import order_is_known
from hounsfield.study.predictions import read
from hounsfield.study.task import Task, load
from hounsfield.train.pretrain import PretrainConfig, build

RECIPE = 1  # counts changes of the code that change a result: an old cell is then done anew

ArmKind = Literal["scratch", "imagenet", "control", "pretrained", "weights", "predictions"]

TRANSFERRED: tuple[ArmKind, ...] = ("imagenet", "pretrained", "weights")  # not from chance


@dataclass(frozen=True)
class Rung:
    """The labels of a cell: patients that train and that choose."""

    train: tuple[str, ...]
    val: tuple[str, ...]

    @property
    def hash(self) -> str:
        """Changes when any patient does."""
        return sp.patients_hash(self.train, self.val)


@dataclass(frozen=True)
class Pretraining:
    """One pre-training run, with the patients that it must not see.

    Attributes:
        hash: Names the run's folder.
        name: As in the study file.
        config: What `train.pretrain` is given.
        without: Patients whose images stay out.
    """

    hash: str
    name: str
    config: PretrainConfig
    without: tuple[str, ...]

    def rows(self) -> dict[str, NDArray[np.int64]]:
        """Store's folder -> the rows that it sees."""
        rows = {}
        for path in self.config.stores:
            left_out = Store.open(path).index["patient"].is_in(list(self.without))
            rows[path] = np.flatnonzero(~left_out.to_numpy()).astype(np.int64)
        return rows


@dataclass(frozen=True)
class Cell:
    """One fine-tuning.

    Attributes:
        hash: Names the cell's folder.
        kind: What the arm starts from.
        pretraining: Hash of the run that the arm starts from, if any.
        seed: Of all chance in the cell; the same for every arm, so that arms are paired.
        rung: The labels of the cell.
        test: The patients that judge.
        settings: All that the hash covers.
    """

    hash: str
    arm: str
    task: str
    protocol: str
    fraction: float
    repeat: int
    fold: int
    kind: ArmKind
    pretraining: str | None
    seed: int
    rung: Rung
    test: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def place(self) -> str:
        """The cell in words, for messages."""
        fold = f", fold {self.fold}" if self.fold else ""
        return (
            f"{self.arm} on {self.task} ({self.protocol}) at {self.fraction:.3g}, "
            f"repeat {self.repeat}{fold}"
        )


@dataclass(frozen=True)
class Plan:
    """A study, ready to run.

    Attributes:
        config: The study file.
        tasks: Name -> task.
        splits: (task, fold) -> split.
        ladders: (task, fold, repeat, fraction) -> rung.
        pretrainings: Hash -> pre-training.
        cells: In the order in which they run.
        primary: The question that decides, every field filled; None with a single arm.
        warnings: What a reader of the results must know.
        cards: Arm -> where its weights come from, if from outside the study.
    """

    config: StudyConfig
    tasks: Mapping[str, Task]
    splits: Mapping[tuple[str, int], Split]
    ladders: Mapping[tuple[str, int, int, float], Rung]
    pretrainings: Mapping[str, Pretraining]
    cells: tuple[Cell, ...]
    primary: Primary | None
    warnings: tuple[str, ...]
    cards: Mapping[str, Card]

    @property
    def hash(self) -> str:
        """Of all cells and of the primary question."""
        question = self.primary and self.primary.model_dump(mode="json")
        return hash_of([question, *(cell.hash for cell in self.cells)])


def plan(config: StudyConfig) -> Plan:
    """The plan of a study; nothing is trained and no image is read.

    Raises:
        ConfigError: A name, a size or a setting is not allowed.
        LabelError: Labels cannot serve a task, or a fraction is too small to hold every class.
        LeakError: A patient stands in two parts of a split.
        StoreError: A store cannot be opened.
        WeightsError: An arm's weights do not fill the backbone, or cannot be had.
    """
    stores = {name: Path(path) for name, path in config.stores.items()}
    _check_size(config)
    cards = cards_of(config)
    tasks = {name: load(name, task, stores) for name, task in config.tasks.items()}
    splits = {key: value for task in tasks.values() for key, value in _splits(task, config)}
    ladders = dict(_ladders(tasks, splits, config))
    runs = {
        (name, fold, repeat): _pretraining(
            name, repeat, config, stores, _kept_out(fold, config, tasks, splits)
        )
        for name in config.arms
        if name in config.pretrain
        for fold in range(max(config.folds, 1))
        for repeat in range(config.repeats)
    }
    cells = tuple(
        _cell(
            config, tasks[task], (protocol, arm, fraction, repeat, fold),
            splits, ladders, runs, cards,
        )
        for protocol in config.protocols
        for task in tasks
        for repeat in range(config.repeats)
        for fold in range(max(config.folds, 1))
        for fraction in config.fractions
        for arm in config.arms
        if arm != POSITION or order_is_known(tasks[task])
    )  # fmt: skip
    for name in {run.name for run in runs.values()}:
        build(runs[name, 0, 0].config, corpus_size=1)  # refuses now what it would refuse later
    return Plan(
        config=config,
        tasks=tasks,
        splits=splits,
        ladders=ladders,
        pretrainings={run.hash: run for run in runs.values()},
        cells=cells,
        primary=_primary(config),
        warnings=(*_warnings(config, tasks), *doubts(cards, tasks)),
        cards=cards,
    )


def _cell(
    config: StudyConfig,
    task: Task,
    place: tuple[str, str, float, int, int],
    splits: Mapping[tuple[str, int], Split],
    ladders: Mapping[tuple[str, int, int, float], Rung],
    runs: Mapping[Any, Pretraining],
    cards: Mapping[str, Card],
) -> Cell:
    protocol, arm, fraction, repeat, fold = place
    rung = ladders[task.name, fold, repeat, fraction]
    if protocol == "paper":
        rung = Rung(rung.train, splits[task.name, fold].val)  # it does not shrink with the labels
    test = splits[task.name, fold].test
    kind, pretraining, start = _arm(arm, fold, repeat, config, runs, cards)
    seed = seed_of(config.seed, "cell", task.name, repeat, fold)
    settings = {
        "recipe": RECIPE,
        "arm": {"kind": kind, "name": arm if kind == "control" else "", **start},
        "task": task.hash,
        "protocol": {"name": protocol, **_settings(protocol, kind, config)},
        "backbone": config.backbone,
        "image_size": config.image_size,
        "labels": rung.hash,
        "test": sp.patients_hash(test),
        "seed": seed,
    }
    return Cell(
        hash=hash_of([settings, arm, task.name, protocol, fraction, repeat, fold]),
        arm=arm,
        task=task.name,
        protocol=protocol,
        fraction=fraction,
        repeat=repeat,
        fold=fold,
        kind=kind,
        pretraining=pretraining,
        seed=seed,
        rung=rung,
        test=test,
        settings=settings,
    )


def _check_size(config: StudyConfig) -> None:
    stride = create(config.backbone).stride
    if config.image_size % stride:
        below = max(config.image_size // stride, 1) * stride
        raise ConfigError(
            f"image_size {config.image_size} is not a multiple of {stride}, the stride of "
            f"{config.backbone}. Use {below} or {below + stride}."
        )


def _splits(task: Task, config: StudyConfig) -> Iterator[tuple[tuple[str, int], Split]]:
    carried = task.strata()
    if not config.folds:
        bare = [task.given_split()]
    elif task.external is not None:
        raise ConfigError(
            f"task {task.name!r} has an external test store and the study has folds; "
            "use one of the two."
        )
    else:
        chance = stream(config.seed, "folds", task.name)
        bare = sp.folds(carried, count=config.folds, stream=chance)
    for fold, split in enumerate(bare):
        if not split.val and config.val_share:
            chance = stream(config.seed, "validation", task.name, fold)
            split = sp.hold_out(split, carried, share=config.val_share, stream=chance)
        _check_test(task, split)
        yield (task.name, fold), split


def _check_test(task: Task, split: Split) -> None:
    labels = set(task.images["label"].to_numpy()[task.rows(split.test)].tolist())
    missing = [name for label, name in enumerate(task.classes) if label not in labels]
    if missing:
        raise LabelError(
            f"task {task.name!r}: no test patient carries {', '.join(missing)}; every class must "
            "be judged. Move patients to test, or set `folds`."
        )


def _ladders(
    tasks: Mapping[str, Task], splits: Mapping[tuple[str, int], Split], config: StudyConfig
) -> Iterator[tuple[tuple[str, int, int, float], Rung]]:
    for (name, fold), split in splits.items():
        carried = tasks[name].strata()
        train = {patient: carried[patient] for patient in split.train}
        val = {patient: carried[patient] for patient in split.val}
        for repeat in range(config.repeats):
            purpose = ("ladder", name, fold, repeat)
            fractions = config.fractions
            trains = sp.ladder(train, fractions, stream=stream(config.seed, *purpose, "train"))
            vals = sp.ladder(val, fractions, stream=stream(config.seed, *purpose, "val"))
            for fraction in fractions:
                _check_rung(tasks[name], fraction, repeat, trains[fraction], len(train))
                yield (name, fold, repeat, fraction), Rung(trains[fraction], vals[fraction])


def _check_rung(
    task: Task, fraction: float, repeat: int, patients: Sequence[str], whole: int
) -> None:
    missing = sp.missing_classes(patients, task.strata())
    if missing:
        names = ", ".join(repr(task.classes[label]) for label in sorted(missing))
        raise LabelError(
            f"task {task.name!r}: fraction {fraction:g} is {len(patients)} of {whole} training "
            f"patients, and in repeat {repeat} none of them carries class {names}. "
            "Use a larger fraction."
        )


def _kept_out(
    fold: int,
    config: StudyConfig,
    tasks: Mapping[str, Task],
    splits: Mapping[tuple[str, int], Split],
) -> frozenset[str]:
    """The patients whose images no pre-training of this fold may see."""
    tests = {patient for name in tasks for patient in splits[name, fold].test}
    if config.keep_out == "test":
        return frozenset(tests)
    return frozenset(tests.union(*(task.images["patient"].to_list() for task in tasks.values())))


def _pretraining(
    name: str,
    repeat: int,
    config: StudyConfig,
    stores: Mapping[str, Path],
    kept_out: frozenset[str],
) -> Pretraining:
    settings = {
        "method": name,
        "backbone": config.backbone,
        "image_size": config.image_size,
        "device": config.device,
        **config.pretrain[name],
    }
    used = settings.get("stores", list(stores))
    for store in used:
        if store not in stores:
            raise ConfigError(f"pretrain.{name}: {one_of('store', store, stores)}")
    settings["stores"] = [str(stores[store]) for store in used]
    own = (repeat,) if config.pretrain_seeds == "per_repeat" else ()
    settings.setdefault("seed", seed_of(config.seed, "pretrain", name, *own) % 2**32)
    parsed = parse(PretrainConfig, settings, where=f"pretrain.{name}")
    opened = [Store.open(stores[store]) for store in used]
    present = frozenset().union(*(store.index["patient"].to_list() for store in opened))
    without = tuple(sorted(kept_out & present))
    facts = [
        RECIPE,
        parsed.model_dump(mode="json", exclude={"stores", "device"}),
        [store.hash for store in opened],
        without,
    ]
    return Pretraining(hash_of(facts), name, parsed, without)


def _arm(
    name: str,
    fold: int,
    repeat: int,
    config: StudyConfig,
    runs: Mapping[Any, Pretraining],
    cards: Mapping[str, Card],
) -> tuple[ArmKind, str | None, dict[str, Any]]:
    """What the arm is, the hash of its pre-training, and all that decides its start."""
    if name in config.pretrain:
        run = runs[name, fold, repeat].hash
        return "pretrained", run, {"pretraining": run}
    if name in cards:
        kind: ArmKind = "imagenet" if name == IMAGENET else "weights"
        return kind, None, {"sha256": cards[name].sha256}
    if name in config.predictions:
        read(Path(config.predictions[name]))  # refuses now what it would refuse later
        return "predictions", None, {"sha256": _sha256(Path(config.predictions[name]))}
    return "scratch" if name == SCRATCH else "control", None, {}


def _settings(protocol: str, kind: ArmKind, config: StudyConfig) -> dict[str, Any]:
    """The settings of the protocol that touch an arm of this kind."""
    if protocol == "fair":
        idle = set() if kind in TRANSFERRED else {"layer_decay"}
        return config.budget.model_dump(mode="json", exclude=idle)
    return config.paper.model_dump(mode="json") if protocol == "paper" else {}


def _primary(config: StudyConfig) -> Primary | None:
    if len(config.arms) < 2:
        return None  # one arm raises no question
    given = config.primary
    baseline = SCRATCH if SCRATCH in config.arms else config.arms[0]
    others = [arm for arm in config.arms if arm != baseline and arm not in CONTROLS]
    given = given or Primary(arm=(others or [baseline])[0], baseline=baseline)
    rivals = [arm for arm in config.arms if arm != given.baseline and arm not in CONTROLS]
    return given.model_copy(
        update={
            "task": given.task or next(iter(config.tasks)),
            "protocol": given.protocol or config.protocols[0],
            "fraction": given.fraction or min(config.fractions),
            "family": given.family or tuple((arm, given.baseline) for arm in rivals),
            "hypotheses": given.hypotheses or ((given.arm, given.baseline),),
        }
    )


def _warnings(config: StudyConfig, tasks: Mapping[str, Task]) -> Iterator[str]:
    if config.primary is None and len(config.arms) > 1:
        yield (
            "No primary question was set beforehand; the first arm against the baseline at the "
            "smallest fraction was taken. Treat every p-value as exploratory."
        )
    shared = config.pretrain_seeds == "shared" and config.repeats > 1
    if shared and set(config.arms) & set(config.pretrain):
        yield (
            "All repeats share one checkpoint per pre-trained arm: the results judge these "
            'checkpoints, not the methods. Set pretrain_seeds = "per_repeat" for the latter.'
        )
    for task in tasks.values():
        if POSITION in config.arms and not order_is_known(task):
            yield (
                f"Task {task.name!r} has slices whose place in their volume is not known, so the "
                "control arm position is left out there."
            )
    if not set(config.arms) & set(CONTROLS):
        yield (
            "No control arm (histogram, position) is part of this study: whether a task has a "
            "shortcut was not looked at."
        )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}. Give an existing file.") from None


def hash_of(value: Any) -> str:
    """Sixteen hexadecimal digits that change with any part of a plain value."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
