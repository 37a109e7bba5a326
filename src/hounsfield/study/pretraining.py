"""The pre-trainings of a study, and the patients that they must not see."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hounsfield.config import parse
from hounsfield.data.store import Store
from hounsfield.errors import ConfigError, one_of
from hounsfield.seeding import seed_of
from hounsfield.study.config import StudyConfig
from hounsfield.study.hashes import hash_of
from hounsfield.study.partition import Splits
from hounsfield.study.task import Task
from hounsfield.train.pretrain import PretrainConfig, build
from hounsfield.train.run_folder import FREE, UNSAID
from hounsfield.train.training import LoopConfig

RECIPE = 1  # counts changes of this code that change a result: what it made before is made anew


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

    def place(self, study: Path) -> Path:
        """Its run in the folder of a study."""
        return study / "pretrain" / self.hash

    def rows(self) -> dict[str, NDArray[np.int64]]:
        """Store's folder -> the rows that it sees."""
        rows = {}
        for path in self.config.stores:
            left_out = Store.open(path).index["patient"].is_in(list(self.without))
            rows[path] = np.flatnonzero(~left_out.to_numpy()).astype(np.int64)
        return rows


def kept_out(
    fold: int,
    config: StudyConfig,
    tasks: Mapping[str, Task],
    splits: Splits,
) -> frozenset[str]:
    """The patients whose images no pre-training of this fold may see."""
    here = [splits[name, fold] for name in tasks]
    judging = {patient for split in here for patient in split.test}
    if config.keep_out == "test":
        return frozenset(judging)
    if config.keep_out == "val_and_test":
        return frozenset(judging.union(*(split.val for split in here)))
    return frozenset(judging.union(*(task.images["patient"].to_list() for task in tasks.values())))


def pretraining(
    name: str, settings: PretrainConfig, never_seen: frozenset[str], *, init: str | None
) -> Pretraining:
    """The pre-training of an arm.

    Args:
        name: Of the arm.
        settings: As `filled_in` gives them.
        never_seen: Patients that stay out.
        init: SHA-256 of the weights that it starts from, if it starts from any.
    """
    opened = [Store.open(path) for path in settings.stores]
    present = frozenset().union(*(store.index["patient"].to_list() for store in opened))
    without = tuple(sorted(never_seen & present))
    facts = [RECIPE, _decides(settings, init), [store.hash for store in opened], without]
    return Pretraining(hash_of(facts), name, settings, without)


def filled_in(
    name: str, repeat: int, config: StudyConfig, stores: Mapping[str, Path]
) -> PretrainConfig:
    """The settings of the study's table `pretrain.NAME`, filled in and fit to run.

    Args:
        name: Of the arm.
        repeat: It counts where every repeat has a pre-training of its own.
        config: The study.
        stores: Name -> folder.

    Raises:
        ConfigError: A setting is not allowed, or a store is not known.
    """
    given = config.pretrain[name]
    if "leave_out" in given:
        raise ConfigError(
            f"pretrain.{name}: leave_out = {given['leave_out']!r} has no say in a study, whose "
            f"keep_out ({config.keep_out}) keeps patients out of every pre-training alike. Take "
            "the line out, and set keep_out of the study."
        )
    if given.get("backbone", config.backbone) != config.backbone:
        raise ConfigError(
            f"pretrain.{name}: backbone {given['backbone']!r} is not the study's, "
            f"{config.backbone!r}, which all arms share. Take the line out."
        )
    used = given.get("stores", list(stores))
    for store in used:
        if store not in stores:
            raise ConfigError(f"pretrain.{name}: {one_of('store', store, stores)}")
    own = (repeat,) if config.pretrain_seeds == "per_repeat" else ()
    settings = {
        "method": name,
        "backbone": config.backbone,
        "image_size": config.image_size,
        "device": config.device,
        "seed": seed_of(config.seed, "pretrain", name, *own) % 2**32,
        **given,
        "stores": [str(stores[store]) for store in used],
    }
    parsed = parse(PretrainConfig, settings, where=f"pretrain.{name}", not_offered=["leave_out"])
    try:
        build(parsed, corpus_size=1)
    except ConfigError as error:
        raise ConfigError(f"pretrain.{name}: {error}") from None
    return parsed


def _decides(config: PretrainConfig, init: str | None) -> dict[str, Any]:
    """All settings that a pre-training's hash covers."""
    decides = config.model_dump(mode="json", exclude={"stores", "device"})
    decides["loop"] |= {name: LoopConfig.model_fields[name].default for name in FREE}
    for key, before in UNSAID.items():  # a pre-training from before there was this keeps its name
        if decides[key] == before:
            del decides[key]
    if init is not None:
        decides["init"] = init  # what is in it, wherever it lies
    return decides
