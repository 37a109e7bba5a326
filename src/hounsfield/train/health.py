"""Is it learning? What the features of a few fixed slices say while a method trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hounsfield.augment.views import plain_view, recipe
from hounsfield.data.batches import Pool
from hounsfield.methods.base import Method
from hounsfield.models import probe
from hounsfield.seeding import seed_of, stream
from hounsfield.train.sentinel import check_features, check_plateau

WATCHED = 256  # slices whose views are compared
PROBED = 512  # labelled slices for the probes
CLASSES = range(2, 21)  # of a label column that is worth a probe
CHUNK = 64


@dataclass(frozen=True)
class Task:
    """Labelled slices for a probe; no patient stands on both sides.

    Attributes:
        name: The label column.
        index: Numbers of the slices in the pool.
        labels: Their class numbers.
        fitted: Which of them the probe learns from.
    """

    name: str
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    fitted: NDArray[np.bool_]


class Watcher:
    """Looks at a method's backbone: spread, rank, two views of a slice, labels where there are any.

    Every look sees the same views of the same slices.

    Args:
        pool: The slices of the training; no others are looked at.
        size, channels, window: Of the views.
        seed: Decides slices and views.
        device: Where the backbone is.
        alarms: Whether a collapse ends the training.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        size: int,
        channels: int,
        window: tuple[float, float],
        seed: int,
        device: torch.device,
        alarms: bool,
    ) -> None:
        self.pool, self.seed, self.device, self.alarms = pool, seed, device, alarms
        self.pair = recipe("two_views", size=size, channels=channels, window=window)
        self.plain = partial(plain_view, size=size, channels=channels, window=window)
        self.tasks = tasks(pool, seed=seed)
        order = stream(seed, "watched").permutation(len(pool))
        self.watched = np.sort(order[:WATCHED])

    def __call__(self, model: nn.Module, line: Mapping[str, float]) -> dict[str, float]:
        """What is seen now; `line` is the latest line of metrics.

        Raises:
            CollapsedError: The features no longer tell images apart, or never began to.
        """
        if not isinstance(model, Method):
            raise TypeError(f"{type(model).__name__} is no Method")
        first, second = self._pairs(model.backbone)
        seen = {
            "feature_std": feature_std(first),
            "effective_rank": effective_rank(first),
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
        }
        for task in self.tasks:
            features = self._features(model.backbone, task.index)
            seen[f"knn_auc/{task.name}"] = probe.knn(features, task.labels, fitted=task.fitted)
            seen[f"linear_auc/{task.name}"] = probe.linear(
                features, task.labels, fitted=task.fitted
            )
        if self.alarms:
            check_features({**line, **seen})
            check_plateau(line, model.plateau())
        return seen

    def _pairs(self, backbone: nn.Module) -> tuple[Tensor, Tensor]:
        firsts, seconds = [], []
        for number, part in enumerate(_chunks(self.watched)):
            batch = self.pool.load(part, self.device)
            chance = torch.Generator().manual_seed(seed_of(self.seed, "watched views", number))
            first, second = self.pair(batch.images, batch.is_hu, chance)
            firsts.append(backbone(first))
            seconds.append(backbone(second))
        return torch.cat(firsts).float(), torch.cat(seconds).float()

    def _features(self, backbone: nn.Module, index: NDArray[np.int64]) -> Tensor:
        features = []
        for part in _chunks(index):
            batch = self.pool.load(part, self.device)
            features.append(backbone(self.plain(batch.images, batch.is_hu)))
        return torch.cat(features).float()


def tasks(pool: Pool, *, seed: int) -> list[Task]:
    """The label columns of the pool's stores that a probe can learn, each with its slices.

    A column serves where it has 2 to 20 classes and where, with half of its patients to learn
    from, at least two classes stand on both sides.
    """
    names = dict.fromkeys(name for store in pool.stores for name in store.labels)
    found = (_task(pool, name, seed=seed) for name in names)
    return [task for task in found if task is not None]


def feature_std(features: Tensor) -> float:
    """Spread of unit vectors: 1 for even directions, 0 where all are one.

    Chen and He, "Exploring Simple Siamese Representation Learning", arXiv 2011.10566, section 4.1;
    here times the root of the dimension.
    """
    return float(F.normalize(features, dim=1).std(dim=0).mean() * features.shape[1] ** 0.5)


def effective_rank(features: Tensor) -> float:
    """RankMe (Garrido et al., arXiv 2210.02885, equation 1): 1 to the smaller of both sides."""
    values = torch.linalg.svdvals(features)
    shares = values / values.sum() + 1e-7
    return float(torch.exp(-(shares * shares.log()).sum()))


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of two views' unit vectors, 0 to 4 (arXiv 2005.10242, section 4.1)."""
    gap = F.normalize(first, dim=1) - F.normalize(second, dim=1)
    return float(gap.square().sum(dim=1).mean())


def uniformity(features: Tensor) -> float:
    """Log mean Gaussian potential of pairs, 0 where all are one (arXiv 2005.10242, section 4.1)."""
    distances = torch.pdist(F.normalize(features, dim=1))
    return float(distances.square().mul(-2).exp().mean().log())


def _task(pool: Pool, name: str, *, seed: int) -> Task | None:
    values: list[object] = []
    patients: list[str] = []
    for number, store in enumerate(pool.stores):
        rows = pool.rows[pool.store_of == number]
        here = store.index[rows]
        values += here[name].to_list() if name in store.labels else [None] * len(rows)
        patients += here["patient"].to_list()
    kinds = sorted({str(value) for value in values if value is not None})
    if len(kinds) not in CLASSES:
        return None
    index = np.flatnonzero([value is not None for value in values])
    index = np.sort(stream(seed, "probed", name).permutation(index)[:PROBED])
    labels = np.array([kinds.index(str(values[place])) for place in index], dtype=np.int64)
    owners = np.array([patients[place] for place in index])
    fitted = np.isin(owners, _half(owners, name, seed=seed))
    shared = set(labels[fitted]) & set(labels[~fitted])
    return Task(name, index, labels, fitted) if len(shared) > 1 else None


def _half(owners: NDArray[np.str_], name: str, *, seed: int) -> NDArray[np.str_]:
    patients = np.unique(owners)
    order = stream(seed, "probe", name).permutation(len(patients))
    return patients[order[: (len(patients) + 1) // 2]]


def _chunks(index: NDArray[np.int64]) -> Sequence[NDArray[np.int64]]:
    return [index[start : start + CHUNK] for start in range(0, len(index), CHUNK)]
