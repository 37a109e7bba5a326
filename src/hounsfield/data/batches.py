"""Batches of stored slices on the device: what step k loads is a function of the seed and k."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hounsfield.data.store import Store
from hounsfield.errors import ConfigError
from hounsfield.seeding import stream

AHEAD = 2  # batches that wait ready; more would only hold memory


@dataclass(frozen=True)
class Batch:
    """Slices on the device.

    Attributes:
        images: int16 `(batch, 1, size, size)`.
        is_hu: bool `(batch,)`.
        index: int64 `(batch,)`: positions in the concatenation of the stores' rows.
    """

    images: Tensor
    is_hu: Tensor
    index: Tensor


class Batches:
    """Shuffled batches without end: one permutation of all rows after another, cut into batches.

    Every batch is full and every slice is seen equally often: a batch may span the border of two
    epochs, and where there are fewer slices than a batch holds, several of them. Nothing is stored
    for a resume: permutation e comes from the stream `(seed, "epoch", e)`.

    Args:
        stores: The stores, all of one size.
        rows: For each store the rows that take part.
        batch: Slices in a batch, over all ranks.
        seed: Of the permutations.
        device: Where the batches go.
        rank, ranks: This process and how many there are; each loads its share of every batch.

    Raises:
        ConfigError: No rows, stores of several sizes, or a batch that the ranks cannot share.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        rows: Sequence[NDArray[np.int64]],
        *,
        batch: int,
        seed: int,
        device: torch.device | str = "cpu",
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if batch < 1 or batch % ranks:
            raise ConfigError(
                f"a batch of {batch} cannot be shared by {ranks} processes; give a multiple."
            )
        self.pool = Pool(stores, rows)
        self.batch, self.seed, self.device = batch, seed, torch.device(device)
        self.share = slice(rank * batch // ranks, (rank + 1) * batch // ranks)
        self.waited_s = 0.0
        self._permutation: tuple[int, NDArray[np.int64]] | None = None

    def load(self, step: int) -> Batch:
        """The batch of `step`, counted from 0."""
        n = len(self.pool)
        places = np.arange(step * self.batch, (step + 1) * self.batch)[self.share]
        epochs = places // n
        index = np.concatenate(
            [self._epoch(int(epoch))[places[epochs == epoch] % n] for epoch in np.unique(epochs)]
        )
        return self.pool.load(index, self.device)

    def prefetch(self, first: int, last: int) -> Iterator[Batch]:
        """The batches of steps `first` to `last - 1`, read ahead by a thread.

        `waited_s` counts the seconds that the consumer waited for the disk.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
            ready: deque[Future[Batch]] = deque()
            try:
                for step in range(first, last):
                    while len(ready) < min(AHEAD, last - step):
                        ready.append(thread.submit(self.load, step + len(ready)))
                    start = time.perf_counter()
                    batch = ready.popleft().result()
                    self.waited_s += time.perf_counter() - start
                    yield batch
            finally:
                for future in ready:
                    future.cancel()

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        if self._permutation is None or self._permutation[0] != epoch:
            order = stream(self.seed, "epoch", epoch).permutation(len(self.pool))
            self._permutation = (epoch, order)
        return self._permutation[1]


class Pool:
    """Rows of several stores as one sequence of slices, numbered from 0.

    Raises:
        ConfigError: No rows, or stores of several sizes.
    """

    def __init__(self, stores: Sequence[Store], rows: Sequence[NDArray[np.int64]]) -> None:
        if len(stores) != len(rows):
            raise ValueError(f"{len(stores)} stores with {len(rows)} sets of rows")
        sizes = sorted({store.size for store in stores})
        if len(sizes) > 1:
            raise ConfigError(
                f"the stores have slices of {', '.join(map(str, sizes))} px. Ingest them again "
                "with one --size."
            )
        self.stores = tuple(stores)
        self.rows = np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64)
        self.store_of = np.repeat(np.arange(len(stores)), [len(part) for part in rows])
        self.is_hu = np.concatenate(
            [
                np.zeros(0, bool),
                *(store.is_hu[part] for store, part in zip(stores, rows, strict=True)),
            ]
        )
        if not len(self.rows):
            raise ConfigError("no slice is left to load; widen the filter or add stores.")

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: NDArray[np.int64], device: torch.device | str = "cpu") -> Batch:
        """The slices numbered `index`, in that order."""
        size = self.stores[0].size
        images = np.empty((len(index), 1, size, size), dtype=np.int16)
        for number, store in enumerate(self.stores):
            here = np.flatnonzero(self.store_of[index] == number)
            if len(here):
                images[here, 0] = store.read(self.rows[index[here]])
        device = torch.device(device)
        return Batch(
            images=_to(torch.from_numpy(images), device),
            is_hu=_to(torch.from_numpy(self.is_hu[index]), device),
            index=_to(torch.from_numpy(np.asarray(index, dtype=np.int64)), device),
        )


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
