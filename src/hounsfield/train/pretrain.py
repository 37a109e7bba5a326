"""From stores to a run: a backbone trained by a method, and all that is needed to go on."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from hounsfield.augment.recipe import Recipe
from hounsfield.augment.views import recipe
from hounsfield.config import Config, overridden, parse, placed, read_toml
from hounsfield.data.batches import Batch, Batches, Pool
from hounsfield.data.store import Store
from hounsfield.data.window import ends_of
from hounsfield.files import check_space, sweep
from hounsfield.lock import held
from hounsfield.methods import METHODS, find
from hounsfield.methods.base import Method
from hounsfield.models.backbone import create
from hounsfield.models.gather import synchronise
from hounsfield.models.pretrained import load_into
from hounsfield.seeding import seed_of
from hounsfield.train import checkpoint, run_folder
from hounsfield.train.device import DeviceName, Precision, fabric
from hounsfield.train.faults import unchanged
from hounsfield.train.health import Watcher
from hounsfield.train.log import say
from hounsfield.train.loop import fit
from hounsfield.train.optim import OptimConfig
from hounsfield.train.papers import defaults
from hounsfield.train.processes import launch
from hounsfield.train.run_folder import CONFIG, RANDOM, Rows, Run
from hounsfield.train.schedule import Budget, Schedule, steps_of
from hounsfield.train.training import CHECKPOINTS, LoopConfig, Watch
from hounsfield.wording import plural

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["CONFIG", "PretrainConfig", "Rows", "Run", "build", "load_pretrain", "pretrain"]


class PretrainConfig(Config):
    """What decides a pre-training; every value that is left out is filled in and written down.

    Attributes:
        method: A registered name, an entry point, or `package.module:Class`.
        stores: Folders that `ingest` made; in a file, from where the file lies.
        leave_out: Splits whose slices are never shown; slices without a split are shown.
        backbone: timm's name, or one of our small ones.
        channels: Of the network's input; the grey image is repeated over them.
        drop_path: Stochastic depth: of the last residual branch, the share of images that skip it
            in training; less of the earlier ones. Nothing is dropped afterwards.
        image_size: Height and width of the (large) views in pixels.
        settings: Where batch size, budget, optimiser, drop_path and the method's own settings come
            from: ours for a small corpus, or the method's paper.
        batch_size: Images of one forward pass, over all processes.
        budget: In epochs, steps or hours.
        optim: Optimiser and rates.
        loop: How the loop goes about it.
        init: "random", "imagenet", or a file, a run or a hub id to go on from; all of it fits or
            it is refused.
        recipe: Views by name; the method's own without.
        window: In HU: a name of `data.window`, or low and high.
        seed: Decides weights, order, views and masks.
        device: Where to compute; "auto" takes a GPU where there is one.
        precision: "auto" is bf16-mixed on GPUs that compute in it, 32-true elsewhere.
        processes: One a GPU, or so many on the CPU.
        options: The method's own settings; in a file, the table with the method's name.
    """

    method: str = "spark"
    stores: tuple[str, ...] = Field(min_length=1)
    leave_out: tuple[Literal["train", "val", "test"], ...] = ("val", "test")
    backbone: str = "resnet50"
    channels: PositiveInt = 1
    drop_path: float = Field(ge=0.0, lt=1.0)
    image_size: PositiveInt = 224
    init: str = RANDOM
    settings: Literal["small", "paper"] = "small"
    batch_size: PositiveInt
    budget: Budget
    optim: OptimConfig
    loop: LoopConfig = LoopConfig()
    recipe: str
    window: str | tuple[float, float] = "wide"
    seed: int = 0
    device: DeviceName = "auto"
    precision: Precision = "auto"
    processes: PositiveInt = 1
    options: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        values = dict(given)
        method = find(str(values.get("method", cls.model_fields["method"].default)))
        filled = defaults(method.name, str(values.get("settings", "small")))
        options = values.pop(method.name, values.get("options", {}))
        for other in METHODS:
            if isinstance(values.get(other), dict):  # a file may say how each method would be
                parse(find(other).config_class, values.pop(other), where=f"[{other}]")
        options = _filled(filled.get("options", {}), options)
        return {
            "batch_size": filled["batch_size"],
            "budget": filled["budget"],
            "recipe": method.recipe,
            "drop_path": filled.get("drop_path", 0.0),
            **values,
            "optim": _filled(filled["optim"], values.get("optim", {})),
            "options": parse(method.config_class, options, where=f"[{method.name}]").model_dump(
                mode="json"
            ),
        }

    def window_hu(self) -> tuple[float, float]:
        """The window in HU.

        Raises:
            ConfigError: No window has this name.
        """
        return ends_of(self.window)


def load_pretrain(path: Path, *, overrides: Sequence[str] = ()) -> PretrainConfig:
    """The pre-training in the file `path`, with `key=value` overrides.

    Paths in the file count from the file's own folder, those of overrides from where we run. An
    `init` that is no file there may be a name or a hub id, and stays as it is.

    Raises:
        ConfigError: The file is missing, not TOML, or says something that is not allowed.
    """
    values, home = read_toml(path), path.resolve().parent
    if isinstance(values.get("stores"), list):
        values["stores"] = [placed(home, place) for place in values["stores"]]
    if "init" in values:
        values["init"] = placed(home, values["init"], must=False)
    return parse(PretrainConfig, overridden(values, overrides), where=str(path))


def pretrain(config: PretrainConfig, out: Path, *, rows: Rows | None = None) -> Run:
    """Train as `config` says and leave a run in `out`; go on where an earlier start was cut off.

    Args:
        config: All that decides the outcome, but for `rows`.
        out: The run's folder: `config.json`, `metrics.jsonl`, `checkpoints/`, and in the end
            `encoder.safetensors` and `run.json`.
        rows: For each store's path the rows that may be seen; without it, all that are not in a
            split that is left out.

    Raises:
        OutputError: `out` holds a run of another configuration or of other stores.
        BusyError: Another process is at work in `out`.
        StoreError: A store is missing or damaged.
        ConfigError: The settings do not fit together or to the stores.
        DiskError: The disk has no room for the checkpoints, or is not writable.
    """
    stores = {path: Store.open(path) for path in config.stores}
    chosen = {path: _rows(store, config, rows) for path, store in stores.items()}
    with held(out):
        identity = run_folder.identity(config, stores, chosen)
        run_folder.refuse_others(out, identity)
        sweep(out)
        if not (out / run_folder.RUN).exists():
            machines = fabric(config.device, precision=config.precision, processes=config.processes)
            launch(machines, _work, config, chosen, out, identity)
        return run_folder.read(out)


def _work(
    machines: "Fabric",
    config: PretrainConfig,
    chosen: Rows,
    out: Path,
    identity: Mapping[str, Any],
) -> None:
    """What each process does; `out` is claimed once all that can be refused has been built."""
    batches = Batches(
        [Store.open(path) for path in chosen],
        list(chosen.values()),
        batch=config.batch_size,
        seed=seed_of(config.seed, "batches"),
        device=machines.device,
        rank=machines.global_rank,
        ranks=machines.world_size,
    )
    check_stores = unchanged(store.path for store in batches.pool.stores)
    watch = _watch(config, batches.pool, machines.device, check_stores)
    method = build(config, corpus_size=len(batches.pool))
    if machines.world_size > 1:
        synchronise(method)
    if machines.is_global_zero:
        _tell_of_repeats(config.batch_size, slices=len(batches.pool))
        check_space(out, checkpoint.room(method) - checkpoint.taken(out / CHECKPOINTS))
        run_folder.claim(out, config, identity)
    fitted = fit(
        method,
        batches=batches,
        make_views=_make_views(config),
        optimiser=config.optim,
        schedule=_schedule(config, slices=len(batches.pool)),
        seed=config.seed,
        config=config.loop,
        fabric=machines,
        folder=out,
        label=method.name,
        watch=watch,
    )
    check_stores()
    if machines.is_global_zero:
        run_folder.leave(out, method, fitted, facts=_facts(config), on=machines)


def _tell_of_repeats(batch: int, *, slices: int) -> None:
    if batch > slices:
        say(
            f"note: a batch of {batch:,} is more than the {plural(slices, 'slice')} that there "
            f"are, so they stand in it several times. Set batch_size = {slices} or less, unless "
            "that is meant."
        )


def _watch(
    config: PretrainConfig, pool: Pool, device: torch.device, check_stores: Callable[[], None]
) -> Watch:
    """What looks at the method now and then: whether the stores are as they were, and it learns."""
    watcher = Watcher(
        pool,
        size=config.image_size,
        channels=config.channels,
        window=config.window_hu(),
        seed=config.seed,
        device=device,
        alarms=config.loop.alarms,
    )

    def watch(model: nn.Module, line: Mapping[str, float]) -> Mapping[str, float]:
        check_stores()
        return watcher(model, line)

    return watch


def _make_views(config: PretrainConfig) -> Callable[[Batch, torch.Generator], list[Tensor]]:
    views = _views(config)
    return lambda batch, chance: views(batch.images, batch.is_hu, chance)


def _schedule(config: PretrainConfig, *, slices: int) -> Schedule:
    images, budget, optim = config.batch_size * config.loop.accumulate, config.budget, config.optim
    return Schedule(
        steps=steps_of(budget, steps_per_epoch=slices / images),
        seconds=None if budget.hours is None else 3600 * budget.hours,
        warm_up=optim.warm_up,
        start_factor=optim.start_factor,
        final_factor=optim.final_factor,
    )


def build(config: PretrainConfig, *, corpus_size: int) -> Method:
    """The method of `config` around its backbone, with weights that its seed decides."""
    kind = find(config.method)
    backbone = create(
        config.backbone,
        channels=config.channels,
        seed=seed_of(config.seed, "backbone"),
        drop_path=config.drop_path,
    )
    for size in sorted({view.size for view in _views(config).views}):
        backbone.check_size(size)
    if config.init != RANDOM:
        load_into(backbone, config.init)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, "method"))
        return kind(
            backbone,
            parse(kind.config_class, config.options, where=f"[{kind.name}]"),
            image_size=config.image_size,
            corpus_size=corpus_size,
        )


def _views(config: PretrainConfig) -> Recipe:
    return recipe(
        config.recipe,
        size=config.image_size,
        channels=config.channels,
        window=config.window_hu(),
    )


def _filled(table: Mapping[str, Any], given: Any) -> Any:
    """`given`, with what it leaves out from `table`; what is no table is refused later."""
    return {**table, **given} if isinstance(given, Mapping) else given


def _rows(store: Store, config: PretrainConfig, rows: Rows | None) -> NDArray[np.int64]:
    if rows is not None:
        return np.asarray(rows[str(store.path)], dtype=np.int64)
    left_out = store.index["split"].is_in(list(config.leave_out)).fill_null(value=False)
    return np.flatnonzero(~left_out.to_numpy()).astype(np.int64)


def _facts(config: PretrainConfig) -> dict[str, str]:
    """What the encoder's file says of how it was made."""
    low, high = config.window_hu()
    return {
        "backbone": config.backbone,
        "channels": str(config.channels),
        "image_size": str(config.image_size),
        "window_hu": f"{low},{high}",
        "config": json.dumps(config.model_dump(mode="json")),
    }
