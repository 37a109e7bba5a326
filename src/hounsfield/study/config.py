"""What a study file says: everything is named before anything runs."""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from hounsfield.config import Config, parse, placed, read_toml
from hounsfield.errors import one_of
from hounsfield.judge.declared import CONTROLS, SCRATCH
from hounsfield.study.task import Level, TaskConfig

Protocol = Literal["fair", "paper", "linear", "knn"]
IMAGENET = "imagenet"
HISTOGRAM, POSITION = CONTROLS
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # it becomes part of file names
BUILT_IN = (SCRATCH, IMAGENET, *CONTROLS)


class Budget(Config):
    """What every arm may spend in a cell of the protocol `fair`.

    Attributes:
        steps: Updates of the weights, the same at every fraction.
        batch: Images in a batch; as many of each class.
        lr: One learning rate, or the grid of which each cell chooses one.
        weight_decay: Of AdamW.
        warm_up: Share of the steps in which the rate climbs.
        layer_decay: Factor of the rate from one stage of a pre-trained backbone to the one below.
        looks: How often validation is looked at, the last step included, where a cell has
            enough validation patients to choose a step.
    """

    steps: PositiveInt = 2000
    batch: PositiveInt = 32
    lr: PositiveFloat | tuple[PositiveFloat, ...] = (1e-4, 3e-4, 1e-3, 3e-3)
    weight_decay: NonNegativeFloat = 0.05
    warm_up: float = Field(default=0.1, ge=0, lt=1)
    layer_decay: float = Field(default=0.7, gt=0, le=1)
    looks: PositiveInt = 5

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates to try, ascending."""
        return tuple(sorted(set(self.lr))) if isinstance(self.lr, tuple) else (self.lr,)

    @field_validator("lr")
    @classmethod
    def _some(cls, lr: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if lr == ():
            raise ValueError("give at least one learning rate")
        return lr


class Paper(Config):
    """The published study's fine-tuning, as its code really ran (arXiv 2308.06534).

    Attributes:
        epochs: Passes over the training images, so few labels mean few steps.
        head_epochs: Of these, the first in which only the head and the batch norms learn.
        batch: Images in a batch.
        lr: Of the head, and of everything in the one epoch that follows `head_epochs`.
        lr_after: Of everything from then on.
        weight_decay: Adam's L2 penalty, on biases and norms too.
        no_flip: Tasks of which no image is turned upside down, as in the published third one.
    """

    epochs: PositiveInt = 70
    head_epochs: NonNegativeInt = 10
    batch: PositiveInt = 64
    lr: PositiveFloat = 1e-4
    lr_after: PositiveFloat = 2e-5
    weight_decay: NonNegativeFloat = 5e-4
    no_flip: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.head_epochs >= self.epochs:
            raise ValueError("head_epochs must be fewer than epochs")
        return self


class Primary(Config):
    """The one question that decides, said beforehand.

    Attributes:
        arm: Which is compared.
        baseline: With which.
        task: None is the first task.
        protocol: None is the first protocol.
        metric: Of the contrast.
        level: Scores of what the task judges, or of patients; None is the task's own level.
        fraction: None is the smallest.
        family: Comparisons that share one error rate; empty is every other arm with `baseline`.
        hypotheses: Pairs of which the first is claimed to be more robust to few labels; empty is
            `arm` and `baseline`.
        margin: An arm is inferior at the fraction if it is below its baseline by more than this.
    """

    arm: str
    baseline: str = SCRATCH
    task: str | None = None
    protocol: Protocol | None = None
    metric: Literal["auc"] = "auc"
    level: Level | None = None
    fraction: float | None = None
    family: tuple[tuple[str, str], ...] = ()
    hypotheses: tuple[tuple[str, str], ...] = ()
    margin: float = Field(default=0.05, ge=0, le=1)


class StudyConfig(Config):
    """A study file.

    Attributes:
        name: Whose results an output folder holds; None is the file's name.
        seed: Decides all chance.
        stores: Name -> folder, relative to the study file.
        tasks: Name -> task.
        pretrain: Name -> settings of a pre-training; its method is its name unless it says so.
            Stores are names in `stores`; none given means all of them.
        weights: Name -> a file, a run or a hub id with weights of the backbone.
        predictions: Name -> a CSV with somebody else's scores.
        arms: scratch, imagenet, histogram, position, or a name in the three tables above.
        backbone: Of all arms.
        image_size: Pixels of the images that networks see.
        fractions: Of the training patients, from 0 to 1.
        repeats: Draws of the ladder, and seeds, the same for every arm.
        folds: 0 takes the store's split; 2 or more cross-validates over all patients.
        val_share: Share of the training patients that choose, where no split names them.
        protocols: Ways to fine-tune.
        keep_out: Whom pre-training must not see: the patients that judge and those that choose,
            the former alone, or all labelled patients.
        pretrain_seeds: One checkpoint for all repeats, or a pre-training for each.
        budget: Of the protocol `fair`.
        paper: Of the protocol `paper`.
        primary: The question that decides.
        leaks: What to do where a test patient or image is also trained on.
        device: Where to compute.
    """

    name: str | None = None
    seed: NonNegativeInt = 0
    stores: dict[str, str] = Field(min_length=1)
    tasks: dict[str, TaskConfig] = Field(min_length=1)
    pretrain: dict[str, dict[str, Any]] = Field(default_factory=dict)
    weights: dict[str, str] = Field(default_factory=dict)
    predictions: dict[str, str] = Field(default_factory=dict)
    arms: tuple[str, ...] = Field(min_length=1)
    backbone: str = "resnet50"
    image_size: PositiveInt = 224
    fractions: tuple[float, ...] = (1.0, 0.25, 0.1)
    repeats: PositiveInt = 3
    folds: NonNegativeInt = 0
    val_share: float = Field(default=0.2, ge=0, lt=1)
    protocols: tuple[Protocol, ...] = ("fair",)
    keep_out: Literal["val_and_test", "test", "labelled"] = "val_and_test"
    pretrain_seeds: Literal["shared", "per_repeat"] = "shared"
    budget: Budget = Budget()
    paper: Paper = Paper()
    primary: Primary | None = None
    leaks: Literal["refuse", "report"] = "refuse"
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @field_validator("fractions")
    @classmethod
    def _shares(cls, fractions: tuple[float, ...]) -> tuple[float, ...]:
        if not fractions or any(not 0 < fraction <= 1 for fraction in fractions):
            raise ValueError("fractions lie above 0 and up to 1")
        return tuple(sorted(set(fractions), reverse=True))

    @field_validator("folds")
    @classmethod
    def _not_one(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("one fold judges nobody; 0 takes the store's split, 5 is usual")
        return folds

    @field_validator("arms", "protocols")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("a name stands twice")
        return names

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        known = [*BUILT_IN, *self.pretrain, *self.weights, *self.predictions]
        for name in (*self.tasks, *known):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name; letters, digits, _, - and . make one")
        twice = {name for name in known if known.count(name) > 1}
        if twice:
            raise ValueError(f"{sorted(twice)} name two things; rename one in its table")
        for arm in self.arms:
            _known(
                "arm",
                arm,
                known,
                "Another needs a table [pretrain.NAME], or a line in [weights] or [predictions].",
            )
        for task in self.paper.no_flip:
            _known("task", task, self.tasks)
        if self.primary is not None:
            _check_primary(self.primary, self)
        return self


def load_study(path: Path) -> StudyConfig:
    """The study in the file `path`; its paths are made absolute, from the file's own folder.

    Weights, and starts of pre-trainings, that are no file there may be a hub id, and stay as they
    are.

    Raises:
        ConfigError: The file is missing, not TOML, or says something that is not allowed.
    """
    values = read_toml(path)
    values.setdefault("name", path.stem)
    home = path.resolve().parent
    for table in ("stores", "weights", "predictions"):
        if isinstance(values.get(table), dict):
            values[table] = {
                name: placed(home, place, must=table != "weights")
                for name, place in values[table].items()
            }
    if isinstance(values.get("pretrain"), dict):
        for run in values["pretrain"].values():
            if isinstance(run, dict) and "init" in run:
                run["init"] = placed(home, run["init"], must=False)
    return parse(StudyConfig, values, where=str(path))


def _check_primary(primary: Primary, study: StudyConfig) -> None:
    pairs = [(primary.arm, primary.baseline), *primary.family, *primary.hypotheses]
    for arm in dict.fromkeys(name for pair in pairs for name in pair):
        _known("arm", arm, study.arms)
    if primary.task is not None:
        _known("task", primary.task, study.tasks)
    if primary.protocol is not None:
        _known("protocol", primary.protocol, study.protocols)
    task = primary.task or next(iter(study.tasks))
    levels = dict.fromkeys([study.tasks[task].level, "patient"])
    if primary.level is not None and primary.level not in levels:
        raise ValueError(
            f"primary.level {primary.level!r} is not how task {task!r} is judged: by "
            f"{' or by '.join(levels)}"
        )
    if primary.fraction is not None and primary.fraction not in study.fractions:
        raise ValueError(f"primary.fraction {primary.fraction} is not one of {study.fractions}")
    fraction = primary.fraction or min(study.fractions)
    if primary.hypotheses and fraction == max(study.fractions):
        raise ValueError(
            "primary.hypotheses are about what is lost with fewer labels, and primary.fraction "
            f"{fraction:g} is the largest of the study. Set a smaller one, or leave them out"
        )


def _known(what: str, name: str, allowed: Any, more: str = "") -> None:
    if name not in allowed:
        raise ValueError(f"{one_of(what, name, allowed)} {more}".rstrip())
