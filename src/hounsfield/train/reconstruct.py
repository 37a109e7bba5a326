"""A picture of what SparK has learnt: slices, what it saw of them, and what it drew."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hounsfield.augment.recipe import MEAN, STD
from hounsfield.augment.views import plain_view
from hounsfield.config import parse
from hounsfield.data.batches import Pool
from hounsfield.data.store import Store
from hounsfield.errors import ConfigError, WeightsError
from hounsfield.files import write_png
from hounsfield.methods import find
from hounsfield.methods.spark import SparK
from hounsfield.seeding import seed_of, stream
from hounsfield.train.checkpoint import newest
from hounsfield.train.pretrain import CONFIG, PretrainConfig, build
from hounsfield.train.run_folder import UNSAID
from hounsfield.train.training import CHECKPOINTS

HIDDEN = (70, 90, 140)  # a blue that no slice has
GAP = 4  # px between pictures
LEAST = 192  # px along a picture; smaller ones are enlarged by a whole number


@dataclass(frozen=True)
class Drawings:
    """Slices that a run was shown, and what it drew where they were hidden.

    Attributes:
        whole, drawn: 8-bit greys, `(slices, height, width)`. The hidden patches are drawn in their
            true mean and spread, which the method does not predict.
        hidden: Whether a pixel was hidden, `(slices, height, width)`.
    """

    whole: NDArray[np.uint8]
    drawn: NDArray[np.uint8]
    hidden: NDArray[np.bool_]

    @property
    def visible(self) -> NDArray[np.uint8]:
        """What the run saw, in colours `(slices, height, width, 3)`: the hidden is blue."""
        blue = np.array(HIDDEN, dtype=np.uint8)
        return np.where(self.hidden[..., None], blue, _colour(self.whole))


def draws(method: str) -> bool:
    """Whether the method of this name draws what it does not see.

    Raises:
        ConfigError: Nothing has this name.
    """
    return issubclass(find(method), SparK)


def reconstruct(run: Path, store: Store, out: Path, *, slices: int = 6, seed: int = 0) -> None:
    """Write a PNG: a row a slice, with the input, what is visible, and the reconstruction.

    Args:
        run: As `drawings` takes it.
        store: Where the slices come from; each from another patient, as far as there are so many.
        out: The file.
        slices: How many.
        seed: Decides slices and masks.

    Raises:
        ConfigError: The run is of another method.
        WeightsError: There is no run, or no sound checkpoint in it.
    """
    pool = Pool([store], [np.arange(len(store))])
    shown = drawings(run, pool, some_of(pool, slices=slices, seed=seed), seed=seed)
    write_png(out, _sheet([_colour(shown.whole), shown.visible, _colour(shown.drawn)]))


def drawings(run: Path, pool: Pool, places: NDArray[np.int64], *, seed: int) -> Drawings:
    """What a run draws of slices, as far as it sees them.

    Args:
        run: A run of SparK, finished or not; its newest checkpoint is used.
        pool: Where the slices come from.
        places: Of the slices in the pool.
        seed: Decides the masks.

    Raises:
        ConfigError: The run is of another method.
        WeightsError: There is no run, or no sound checkpoint in it.
    """
    model, config = _load(run)
    batch = pool.load(places)
    images = plain_view(
        batch.images,
        batch.is_hu,
        size=config.image_size,
        channels=config.channels,
        window=config.window_hu(),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "masks"))
        layout = model.draw_layout(images)
    drawn = model.reconstruct(images, layout)
    side = model.backbone.stride
    patches = layout.hidden.view(-1, *layout.grid)
    hidden = patches.repeat_interleave(side, 1).repeat_interleave(side, 2).numpy()
    whole, redrawn = (_grey(each[:, 0] * STD + MEAN) for each in (images, drawn))
    return Drawings(whole, redrawn, hidden)


def some_of(pool: Pool, *, slices: int, seed: int) -> NDArray[np.int64]:
    """Places in a pool, of as many patients as possible, from the middle half of their slices.

    None is given twice, so there may be fewer than `slices`.
    """
    chance = stream(seed, "slices")
    patients = np.empty(len(pool), dtype=object)
    for number, store in enumerate(pool.stores):
        here = pool.store_of == number
        patients[here] = store.index["patient"].gather(pool.rows[here]).to_list()
    order = chance.permutation(np.unique(patients))
    chosen: list[int] = []
    for place in range(min(slices, len(pool))):
        places = np.flatnonzero(patients == order[place % len(order)])
        middle = places[len(places) // 4 : len(places) - len(places) // 4]
        fresh = np.setdiff1d(middle, chosen)
        if len(fresh):  # else this patient has no more to show
            chosen.append(int(chance.choice(fresh)))
    return np.array(chosen, dtype=np.int64)


def _load(run: Path) -> tuple[SparK, PretrainConfig]:
    try:
        facts = json.loads((run / CONFIG).read_bytes())
    except FileNotFoundError:
        raise WeightsError(f"no run at {run}. Give the folder that `pretrain` wrote.") from None
    config = parse(PretrainConfig, {**UNSAID, **facts["config"]}, where=str(run / CONFIG))
    if not draws(config.method):
        raise ConfigError(
            f"{run} is a run of {config.method!r}, which draws nothing. Give a run of "
            f"{SparK.name!r}."
        )
    damaged: list[str] = []
    found = newest(run / CHECKPOINTS, say=damaged.append)
    if found is None:
        raise WeightsError(
            " ".join([*damaged, f"{run} holds no sound checkpoint. Train it first."])
        )
    # The weights come from the checkpoint, so those of a file to go on from are not asked for.
    model = build(config.model_copy(update={"init": "random"}), corpus_size=1)
    model.load_state_dict(found[0]["ema"] or found[0]["model"])
    assert isinstance(model, SparK)  # noqa: S101 - for mypy: the name said so
    return model.eval(), config


def _grey(unit: Tensor) -> NDArray[np.uint8]:
    """8-bit greys of images `(batch, height, width)` in [0, 1]."""
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _colour(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`(batch, height, width, 3)`."""
    return np.repeat(grey[..., None], 3, axis=-1)


def _sheet(columns: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The pictures side by side, a row a slice, with white around them; small ones enlarged."""
    times = -(-LEAST // columns[0].shape[1])
    framed = [
        np.pad(
            each.repeat(times, axis=1).repeat(times, axis=2),
            ((0, 0), (0, GAP), (0, GAP), (0, 0)),
            constant_values=255,
        )
        for each in columns
    ]
    rows = np.concatenate(framed, axis=2)  # (batch, height, width of all, 3)
    sheet = rows.reshape(-1, *rows.shape[2:])
    return np.pad(sheet, ((GAP, 0), (GAP, 0), (0, 0)), constant_values=255)
