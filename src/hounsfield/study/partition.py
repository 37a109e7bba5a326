"""Who trains, chooses and judges in a task, fold by fold, and the ladders below."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hounsfield.data import split as sp
from hounsfield.data.split import Split, Strata
from hounsfield.errors import ConfigError, LabelError, LeakError
from hounsfield.seeding import stream
from hounsfield.study.config import StudyConfig
from hounsfield.study.task import Task

Splits = Mapping[tuple[str, int], Split]  # (task, fold)


@dataclass(frozen=True)
class Rung:
    """The labels of a cell: patients that train and that choose."""

    train: tuple[str, ...]
    val: tuple[str, ...]

    @property
    def hash(self) -> str:
        """Changes when any patient does."""
        return sp.patients_hash(self.train, self.val)


def splits_of(task: Task, config: StudyConfig) -> Iterator[tuple[tuple[str, int], Split]]:
    """The split of each of the task's folds.

    Raises:
        ConfigError: Folds together with an external test store.
        LabelError: A class is not learnt from or not judged, or has fewer patients than there are
            folds.
        LeakError: A patient stands in two parts.
    """
    if config.folds and task.external is not None:
        raise ConfigError(
            f"task {task.name!r} has an external test store and the study has folds; "
            "use one of the two."
        )
    carried = task.strata()
    try:
        bare = _folds(task, carried, config) if config.folds else [task.given_split()]
    except (LabelError, LeakError) as error:
        raise type(error)(f"task {task.name!r}: {error}") from None
    for fold, split in enumerate(bare):
        if not split.val and config.val_share:
            chance = stream(config.seed, "validation", task.name, fold)
            split = sp.hold_out(split, carried, share=config.val_share, stream=chance)
        _check_part(task, "train", split.train, "learnt from")
        _check_part(task, "test", split.test, "judged")
        yield (task.name, fold), split


def _folds(task: Task, carried: Strata, config: StudyConfig) -> list[Split]:
    chance = stream(config.seed, "folds", task.name)
    return sp.folds(carried, count=config.folds, classes=task.classes, stream=chance)


def _check_part(task: Task, part: str, patients: Sequence[str], role: str) -> None:
    labels = set(task.images["label"].to_numpy()[task.rows(patients)].tolist())
    missing = [repr(name) for label, name in enumerate(task.classes) if label not in labels]
    if missing:
        raise LabelError(
            f"task {task.name!r}: no {part} patient carries class {', '.join(missing)}; every "
            f"class must be {role}. Move patients to {part}, or set `folds`."
        )


def ladders_of(
    tasks: Mapping[str, Task], splits: Splits, config: StudyConfig
) -> Iterator[tuple[tuple[str, int, int, float], Rung]]:
    """The rung of each (task, fold, repeat, fraction).

    Raises:
        LabelError: A fraction is too small to hold every class.
    """
    for (name, fold), split in splits.items():
        carried = tasks[name].strata()
        train, val = sp.among(carried, split.train), sp.among(carried, split.val)
        for repeat in range(config.repeats):
            purpose = ("ladder", name, fold, repeat)
            fractions = config.fractions
            trains = sp.ladder(train, fractions, stream=stream(config.seed, *purpose, "train"))
            vals = sp.ladder(val, fractions, stream=stream(config.seed, *purpose, "val"))
            for fraction in fractions:
                _check_rung(tasks[name], carried, fraction, repeat, trains[fraction], len(train))
                yield (name, fold, repeat, fraction), Rung(trains[fraction], vals[fraction])


def _check_rung(
    task: Task,
    carried: Strata,
    fraction: float,
    repeat: int,
    patients: Sequence[str],
    whole: int,
) -> None:
    missing = sp.missing_classes(patients, carried)
    if missing:
        names = ", ".join(repr(task.classes[label]) for label in sorted(missing))
        raise LabelError(
            f"task {task.name!r}: fraction {fraction:g} is {len(patients)} of {whole} training "
            f"patients, and in repeat {repeat} none of them carries class {names}. "
            "Use a larger fraction."
        )
