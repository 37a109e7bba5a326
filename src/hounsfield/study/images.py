"""A task's images in memory, read from the store once, and the batches that training draws."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from hounsfield.data.store import Store
from hounsfield.data.window import Window, window_of
from hounsfield.seeding import stream
from hounsfield.study.task import Task


@dataclass(frozen=True)
class Images:
    """All labelled images of a task on one device.

    Attributes:
        pixels: int16 `(images, 1, size, size)`.
        is_hu: bool `(images,)`.
        labels: int64 `(images,)`.
        window: The range of HU that networks see.
    """

    pixels: Tensor
    is_hu: Tensor
    labels: Tensor
    window: Window

    @property
    def window_hu(self) -> tuple[float, float]:
        """The window's ends."""
        return self.window.low, self.window.high


def read(task: Task, device: torch.device | str = "cpu") -> Images:
    """The images of `task`, in its order."""
    parts = [(task.store, task.images.filter(~pl.col("outside")))]
    if task.external is not None:
        parts.append((task.external, task.images.filter("outside")))
    pixels = [Store.open(store).read(table["slice"].to_numpy()) for store, table in parts]
    is_hu = (task.images["units"] == "hu").to_numpy()
    return Images(
        pixels=torch.from_numpy(np.concatenate(pixels))[:, None].to(device),
        is_hu=torch.from_numpy(is_hu.copy()).to(device),
        labels=torch.from_numpy(task.images["label"].to_numpy().astype(np.int64)).to(device),
        window=window_of(task.config.window),
    )


@dataclass(frozen=True)
class Labelled:
    """A batch: int16 pixels `(batch, 1, size, size)`, which are in HU, and their labels."""

    pixels: Tensor
    is_hu: Tensor
    labels: Tensor


def pick(images: Images, places: NDArray[np.int64]) -> Labelled:
    """The images at `places` as a batch."""
    at = torch.from_numpy(places).to(images.pixels.device)
    return Labelled(images.pixels[at], images.is_hu[at], images.labels[at])


class Batches:
    """Batches of chosen images; which step holds which image is a function of the seed.

    Args:
        images: Where the chosen ones lie.
        groups: Places in `images`. Every batch holds as many of each group, to within one, and
            within a group every image is seen equally often: a group is dealt out in one
            permutation after another.
        batch: Images in a batch.
        seed: Of the permutations.
    """

    def __init__(
        self, images: Images, groups: list[NDArray[np.int64]], *, batch: int, seed: int
    ) -> None:
        self.images, self.groups, self.batch, self.seed = images, groups, batch, seed
        self.waited_s = 0.0
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def prefetch(self, first: int, last: int) -> Iterator[Labelled]:
        """Batches `first` to `last - 1`; the images are in memory, so nothing is read ahead."""
        return (self.load(step) for step in range(first, last))

    def load(self, step: int) -> Labelled:
        """The batch of `step`, counted from 0."""
        return pick(self.images, self.places(step))

    def places(self, step: int) -> NDArray[np.int64]:
        """Places of the images in the batch of `step`."""
        draws = np.arange(step * self.batch, (step + 1) * self.batch)
        groups, turns = draws % len(self.groups), draws // len(self.groups)
        return np.array(
            [self._dealt(g, t) for g, t in zip(groups.tolist(), turns.tolist(), strict=True)],
            dtype=np.int64,
        )

    def _dealt(self, group: int, turn: int) -> int:
        members = self.groups[group]
        deal, place = divmod(turn, len(members))
        if self._orders.get(group, (-1,))[0] != deal:
            order = stream(self.seed, "deal", group, deal).permutation(len(members))
            self._orders[group] = (deal, order)
        return int(members[self._orders[group][1][place]])


def by_class(images: Images, places: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """`places`, one group for each class among them."""
    labels = images.labels.cpu().numpy()[places]
    return [places[labels == label] for label in np.unique(labels)]
