"""A picture of what SparK has learnt: slices, what it saw of them, and what it drew."""

import io
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hounsfield.augment.views import recipe
from hounsfield.config import parse
from hounsfield.data.batches import Pool
from hounsfield.data.store import Store
from hounsfield.errors import ConfigError, WeightsError
from hounsfield.files import write_whole
from hounsfield.methods.spark import SparK
from hounsfield.seeding import seed_of, stream
from hounsfield.train.checkpoint import newest
from hounsfield.train.pretrain import CONFIG, PretrainConfig, build
from hounsfield.train.training import CHECKPOINTS

HIDDEN = (70, 90, 140)  # a blue that no slice has
GAP = 4  # px between pictures


def reconstruct(run: Path, store: Store, out: Path, *, slices: int = 6, seed: int = 0) -> None:
    """Write a PNG: a row a slice, with the input, what is visible, and the reconstruction.

    The hidden patches are drawn in their true mean and spread, which the method does not predict.

    Args:
        run: A run of SparK, finished or not; its newest checkpoint is used.
        store: Where the slices come from; each from another patient, as far as there are so many.
        out: The file.
        slices: How many.
        seed: Decides slices and masks.

    Raises:
        ConfigError: The run is of another method.
        WeightsError: There is no run, or no sound checkpoint in it.
    """
    model, config = _load(run)
    rows = _rows(store, slices, seed)
    batch = Pool([store], [rows]).load(np.arange(len(rows)), torch.device("cpu"))
    plain = recipe(
        "plain", size=config.image_size, channels=config.channels, window=config.window_hu()
    )
    (images,) = plain(batch.images, batch.is_hu, torch.Generator())  # the recipe draws nothing
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "masks"))
        layout = model.draw_layout(images)
    drawn = model.reconstruct(images, layout)
    side = model.backbone.stride
    patches = layout.hidden.view(-1, *layout.grid)
    hidden = patches.repeat_interleave(side, 1).repeat_interleave(side, 2).numpy()
    whole, redrawn = (_grey(each[:, 0] * plain.std[0] + plain.mean[0]) for each in (images, drawn))
    seen = np.where(hidden[..., None], np.array(HIDDEN, dtype=np.uint8), whole)
    buffer = io.BytesIO()
    Image.fromarray(_sheet([whole, seen, redrawn])).save(buffer, format="PNG")
    write_whole(out, buffer.getvalue())


def _load(run: Path) -> tuple[SparK, PretrainConfig]:
    try:
        facts = json.loads((run / CONFIG).read_bytes())
    except FileNotFoundError:
        raise WeightsError(f"no run at {run}. Give the folder that `pretrain` wrote.") from None
    config = parse(PretrainConfig, facts["config"], where=str(run / CONFIG))
    if config.method != SparK.name:
        raise ConfigError(
            f"{run} is a run of {config.method!r}, which draws nothing. Give a run of "
            f"{SparK.name!r}."
        )
    damaged: list[str] = []
    found = newest(run / CHECKPOINTS, device=torch.device("cpu"), say=damaged.append)
    if found is None:
        raise WeightsError(
            " ".join([*damaged, f"{run} holds no sound checkpoint. Train it first."])
        )
    # The weights come from the checkpoint, so those of a file to go on from are not asked for.
    model = build(config.model_copy(update={"init": "random"}), corpus_size=1)
    model.load_state_dict(found[0]["ema"] or found[0]["model"])
    assert isinstance(model, SparK)  # noqa: S101 - for mypy: the name said so
    return model.eval(), config


def _rows(store: Store, slices: int, seed: int) -> NDArray[np.int64]:
    """Rows from as many patients as possible, from the middle half of their slices."""
    chance = stream(seed, "slices")
    patients = store.index["patient"].to_numpy()
    order = chance.permutation(np.unique(patients))
    chosen: list[int] = []
    for place in range(min(slices, len(store))):
        rows = np.flatnonzero(patients == order[place % len(order)])
        middle = rows[len(rows) // 4 : len(rows) - len(rows) // 4]
        chosen.append(int(chance.choice(middle)))
    return np.array(chosen, dtype=np.int64)


def _grey(unit: Tensor) -> NDArray[np.uint8]:
    """Pictures `(batch, height, width, 3)` of images `(batch, height, width)` in [0, 1]."""
    grey = (unit.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return np.repeat(grey[..., None], 3, axis=-1)


def _sheet(columns: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The pictures side by side, a row a slice, with white between them."""
    framed = [
        np.pad(each, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255) for each in columns
    ]
    rows = np.concatenate(framed, axis=2)  # (batch, height, width of all, 3)
    return rows.reshape(-1, *rows.shape[2:])
