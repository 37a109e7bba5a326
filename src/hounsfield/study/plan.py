"""study.toml -> tasks, splits, ladders, pre-trainings and cells, each named by its hash.

A hash covers all that decides a result and nothing else: change a setting, and only the cells
that it touches get new names; the others are found finished.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from hounsfield.data.split import Split, patients_hash
from hounsfield.errors import ConfigError, InputError
from hounsfield.files import sha256_of
from hounsfield.judge.declared import CONTROLS, SCRATCH
from hounsfield.judge.limits import FEWEST_FOLDED
from hounsfield.models.backbone import create
from hounsfield.models.weights_source import Card
from hounsfield.seeding import seed_of
from hounsfield.study.cards import cards_of, doubts
from hounsfield.study.config import IMAGENET, POSITION, Primary, StudyConfig
from hounsfield.study.controls import order_is_known
from hounsfield.study.hashes import hash_of
from hounsfield.study.partition import Rung, Splits, ladders_of, splits_of
from hounsfield.study.predictions import covers, read
from hounsfield.study.pretraining import RECIPE, Pretraining, filled_in, kept_out, pretraining
from hounsfield.study.task import Task, load
from hounsfield.wording import plural

ArmKind = Literal["scratch", "imagenet", "control", "pretrained", "weights", "predictions"]

WITHOUT_NETWORK: tuple[ArmKind, ...] = ("control", "predictions")
TRANSFERRED: tuple[ArmKind, ...] = ("imagenet", "pretrained", "weights")  # not from chance


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
    splits: Splits
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
        InputError: Somebody else's scores lack test images of a cell that they speak of, or speak
            of no cell.
        LeakError: A patient stands in two parts of a split.
        StoreError: A store cannot be opened.
        WeightsError: An arm's weights do not fill the backbone, or cannot be had.
    """
    stores = {name: Path(path) for name, path in config.stores.items()}
    _check_size(config)
    cards = cards_of(config)
    tasks = {name: load(name, task, stores) for name, task in config.tasks.items()}
    splits = {key: value for task in tasks.values() for key, value in splits_of(task, config)}
    ladders = dict(ladders_of(tasks, splits, config))
    runs = _runs(config, stores, tasks, splits, cards)
    cells = tuple(_cells(config, tasks, splits, ladders, runs, cards))
    return Plan(
        config=config,
        tasks=tasks,
        splits=splits,
        ladders=ladders,
        pretrainings={run.hash: run for run in runs.values()},
        cells=cells,
        primary=_primary(config),
        warnings=(*_warnings(config, tasks), *_unscored(config, cells), *doubts(cards, tasks)),
        cards=cards,
    )


def _runs(
    config: StudyConfig,
    stores: Mapping[str, Path],
    tasks: Mapping[str, Task],
    splits: Splits,
    cards: Mapping[str, Card],
) -> dict[tuple[str, int, int], Pretraining]:
    """(arm, fold, repeat) -> the pre-training that the arm starts from there."""
    folds = range(max(config.folds, 1))
    never_seen = {fold: kept_out(fold, config, tasks, splits) for fold in folds}
    arms = [arm for arm in config.arms if arm in config.pretrain]
    own = config.repeats if config.pretrain_seeds == "per_repeat" else 1
    trained = {
        (arm, fold, repeat): pretraining(
            arm, settings, never_seen[fold], init=cards[arm].sha256 if arm in cards else None
        )
        for arm in arms
        for repeat in range(own)
        for settings in [filled_in(arm, repeat, config, stores)]  # it builds the networks
        for fold in folds
    }
    return {
        (arm, fold, repeat): trained[arm, fold, repeat % own]
        for arm in arms
        for fold in folds
        for repeat in range(config.repeats)
    }


def _cells(
    config: StudyConfig,
    tasks: Mapping[str, Task],
    splits: Splits,
    ladders: Mapping[tuple[str, int, int, float], Rung],
    runs: Mapping[tuple[str, int, int], Pretraining],
    cards: Mapping[str, Card],
) -> Iterator[Cell]:
    """Every cell of the study; an arm is left out where it can have no score."""
    theirs = {
        arm: read(Path(config.predictions[arm])) for arm in config.arms if arm in config.predictions
    }
    starts = {arm: _start(arm, config, cards) for arm in config.arms}
    repeats, folds = range(config.repeats), range(max(config.folds, 1))
    for protocol, task, repeat, fold, fraction, arm in product(
        config.protocols, tasks.values(), repeats, folds, config.fractions, config.arms
    ):
        split = splits[task.name, fold]
        here = {"fraction": fraction, "repeat": repeat, "fold": fold}
        if arm == POSITION and not order_is_known(task):
            continue
        if arm in theirs and not covers(theirs[arm], task, split, **here):
            continue
        yield _cell(
            config,
            task,
            (protocol, arm, fraction, repeat, fold),
            split,
            ladders[task.name, fold, repeat, fraction],
            starts[arm],
            runs.get((arm, fold, repeat)),
        )


def _cell(
    config: StudyConfig,
    task: Task,
    place: tuple[str, str, float, int, int],
    split: Split,
    rung: Rung,
    start: tuple[ArmKind, dict[str, str]],
    run: Pretraining | None,
) -> Cell:
    protocol, arm, fraction, repeat, fold = place
    if protocol == "paper":
        rung = Rung(rung.train, split.val)  # it does not shrink with the labels
    kind, content = start
    content = {"pretraining": run.hash} if run else content
    seed = seed_of(config.seed, "cell", task.name, repeat, fold)
    settings = {
        "recipe": RECIPE,
        "arm": {"kind": kind, "name": arm if kind == "control" else "", **content},
        "task": task.hash,
        **_settings(protocol, kind, task.name, config),
        "labels": rung.hash,
        "test": patients_hash(split.test),
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
        pretraining=run.hash if run else None,
        seed=seed,
        rung=rung,
        test=split.test,
        settings=settings,
    )


def _start(
    arm: str, config: StudyConfig, cards: Mapping[str, Card]
) -> tuple[ArmKind, dict[str, str]]:
    """What the arm is, and the content of its file where it has one."""
    if arm in config.pretrain:
        return "pretrained", {}  # the run's hash decides, fold by fold
    if arm in cards:
        return ("imagenet" if arm == IMAGENET else "weights"), {"sha256": cards[arm].sha256}
    if arm in config.predictions:
        return "predictions", {"sha256": sha256_of(Path(config.predictions[arm]))}
    return ("scratch" if arm == SCRATCH else "control"), {}


def _settings(protocol: str, kind: ArmKind, task: str, config: StudyConfig) -> dict[str, Any]:
    """The settings that touch an arm of this kind on this task under this protocol."""
    if kind in WITHOUT_NETWORK:
        return {"protocol": {"name": protocol}}
    network = {"backbone": config.backbone, "image_size": config.image_size}
    return {"protocol": {"name": protocol, **_budget(protocol, kind, task, config)}, **network}


def _budget(protocol: str, kind: ArmKind, task: str, config: StudyConfig) -> dict[str, Any]:
    if protocol == "fair":
        idle = set() if kind in TRANSFERRED else {"layer_decay"}
        return config.budget.model_dump(mode="json", exclude=idle)
    if protocol == "paper":
        told = config.paper.model_dump(mode="json", exclude={"no_flip"})
        return {**told, "flip": task not in config.paper.no_flip}
    return {}


def _check_size(config: StudyConfig) -> None:
    backbone = create(config.backbone)
    stride = backbone.stride
    if config.image_size % stride:
        below = max(config.image_size // stride, 1) * stride
        raise ConfigError(
            f"image_size {config.image_size} is not a multiple of {stride}, the stride of "
            f"{config.backbone}. Use {below} or {below + stride}."
        )
    backbone.check_size(config.image_size)


def _primary(config: StudyConfig) -> Primary | None:
    if len(config.arms) < 2:
        return None  # one arm raises no question
    given = config.primary
    baseline = SCRATCH if SCRATCH in config.arms else config.arms[0]
    others = [arm for arm in config.arms if arm != baseline and arm not in CONTROLS]
    if given is None and not others:
        return None
    given = given or Primary(arm=(others or [baseline])[0], baseline=baseline)
    task = given.task or next(iter(config.tasks))
    rivals = [arm for arm in config.arms if arm != given.baseline and arm not in CONTROLS]
    return given.model_copy(
        update={
            "task": task,
            "level": given.level or config.tasks[task].level,
            "protocol": given.protocol or config.protocols[0],
            "fraction": given.fraction or min(config.fractions),
            "family": given.family or tuple((arm, given.baseline) for arm in rivals),
            "hypotheses": given.hypotheses or ((given.arm, given.baseline),),
        }
    )


def _warnings(config: StudyConfig, tasks: Mapping[str, Task]) -> Iterator[str]:
    if config.primary is None and _primary(config) is not None:
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
    if config.folds and config.repeats < FEWEST_FOLDED:
        yield (
            f"With {plural(config.repeats, 'repeat')} of a cross-validation no interval of a "
            "difference holds and tells something, and none is printed. Set repeats = "
            f"{FEWEST_FOLDED} or more, or folds = 0."
        )
    for task in tasks.values():
        carried = task.strata()
        of_patients = len(task.inside) > len(carried) == sum(map(len, carried.values()))
        if task.config.level == "slice" and of_patients:
            yield (
                f"Task {task.name!r} is judged by slice, and all slices of each patient bear one "
                'label. If it is the patient\'s, set level = "patient" in the task.'
            )
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


def _unscored(config: StudyConfig, cells: Sequence[Cell]) -> Iterator[str]:
    places = {(cell.task, cell.protocol, cell.fraction, cell.repeat, cell.fold) for cell in cells}
    for arm in (arm for arm in config.arms if arm in config.predictions):
        scored = sum(cell.arm == arm for cell in cells)
        if not scored:
            raise InputError(
                f"arm {arm!r} has no score for any cell: no row of {config.predictions[arm]} is of "
                f"a task ({', '.join(config.tasks)}), fraction "
                f"({', '.join(f'{one:g}' for one in config.fractions)}), repeat and fold (from 0) "
                f"of this study. Mend its columns, or take {arm!r} out of arms."
            )
        if scored < len(places):
            yield f"Arm {arm!r} has scores for {scored} of {len(places)} cells; the rest stay out."
