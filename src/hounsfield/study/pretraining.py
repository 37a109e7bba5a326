"""The pre-trainings of a study, and the patients that they must not see."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
from hounsfield.train.run_folder import FREE
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
    name: str,
    repeat: int,
    config: StudyConfig,
    stores: Mapping[str, Path],
    never_seen: frozenset[str],
    *,
    init: str | None,
) -> Pretraining:
    """The pre-training of an arm for a repeat.

    Args:
        name: Of the arm.
        repeat: It counts where every repeat has a pre-training of its own.
        config: The study.
        stores: Name -> folder.
        never_seen: Patients that stay out.
        init: SHA-256 of the weights that it starts from, if it starts from any.

    Raises:
        ConfigError: A setting is not allowed, or a store is not known.
    """
    if "leave_out" in config.pretrain[name]:
        raise ConfigError(
            f"pretrain.{name}: leave_out = {config.pretrain[name]['leave_out']!r} has no say in a "
            f"study, whose keep_out ({config.keep_out}) keeps patients out of every pre-training "
            "alike. Take the line out, and set keep_out of the study."
        )
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
    if settings["backbone"] != config.backbone:
        raise ConfigError(
            f"pretrain.{name}: backbone {settings['backbone']!r} is not the study's, "
            f"{config.backbone!r}, which all arms share. Take the line out."
        )
    own = (repeat,) if config.pretrain_seeds == "per_repeat" else ()
    settings.setdefault("seed", seed_of(config.seed, "pretrain", name, *own) % 2**32)
    parsed = parse(PretrainConfig, settings, where=f"pretrain.{name}")
    _refuse_now(name, parsed)
    opened = [Store.open(stores[store]) for store in used]
    present = frozenset().union(*(store.index["patient"].to_list() for store in opened))
    without = tuple(sorted(never_seen & present))
    decides = parsed.model_dump(mode="json", exclude={"stores", "device"})
    decides["loop"] |= {name: LoopConfig.model_fields[name].default for name in FREE}
    if not parsed.drop_path:  # a pre-training from before there was this setting keeps its name
        del decides["drop_path"]
    if init is not None:
        decides["init"] = init  # what is in it, wherever it lies
    facts = [RECIPE, decides, [store.hash for store in opened], without]
    return Pretraining(hash_of(facts), name, parsed, without)


def _refuse_now(name: str, config: PretrainConfig) -> None:
    """Refuse what the run would refuse later."""
    try:
        build(config, corpus_size=1)
    except ConfigError as error:
        raise ConfigError(f"pretrain.{name}: {error}") from None
