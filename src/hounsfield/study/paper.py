"""The protocol `paper`: fine-tuning as the published study's code really ran.

Wolf et al., "Self-supervised pre-training with contrastive and masked autoencoder methods for
dealing with small datasets in deep learning for medical imaging" (arXiv 2308.06534), notebooks of
https://github.com/Wolfda95/SSL-MedicalImagining-CL-MAE (commit 87a1627, folder DS). What it does
and `fair` does not: a number of epochs, so few labels mean few steps; no class balance; for the
first epochs only the head and the batch norms learn; the rate falls once, where the unfreezing
callback wrote the backbone's rate over everybody's; the epoch with the best validation accuracy
is judged, on a validation set that does not shrink with the labels.

Unlike the study: our images, window, normalisation and networks, and as many epochs for every task
(the study's tasks had 25 to 70).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import entropy
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from hounsfield.augment.views import plain_view
from hounsfield.models.backbone import Backbone
from hounsfield.seeding import seed_of, stream
from hounsfield.study.classifier import Classifier, Keeper, predict
from hounsfield.study.config import Paper
from hounsfield.study.images import Images, Labelled, pick
from hounsfield.study.scores import Score
from hounsfield.study.trained import Labels, Trained, scored
from hounsfield.train.loop import fit
from hounsfield.train.optim import OptimConfig
from hounsfield.train.schedule import Schedule
from hounsfield.train.training import LoopConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def paper(
    start: Callable[[], Backbone],
    images: Images,
    labels: Labels,
    *,
    classes: int,
    size: int,
    settings: Paper,
    flip: bool,
    seed: int,
    on: "Fabric",
) -> Trained:
    """Fine-tune as the published study did, score validation and test.

    Args:
        start: A fresh copy of the arm's backbone.
        images: Of the task.
        labels: Of the cell; validation is whole.
        classes: How many there are.
        size: Pixels of what the network sees.
        settings: The study's numbers.
        flip: Whether half of the training images are turned upside down.
        seed: Of the head, batches and flips.
        on: Device and precision.

    Raises:
        DivergedError: The training diverged.
    """
    epochs = Epochs(images, labels.train, batch=settings.batch, seed=seed_of(seed, "batches"))
    steps = settings.epochs * epochs.per_epoch
    model = _Thawing(start(), classes, settings, seed=seed).to(images.pixels.device)
    keeper = Keeper(lambda: _accuracy(model, images, labels.val, size=size), first_of_equals=True)
    fitted = fit(
        model,
        batches=epochs,
        make_views=_make_views(model, images, size=size, flip=flip),
        optimiser=OptimConfig(name="adam", lr=settings.lr, weight_decay=settings.weight_decay),
        schedule=Falling(
            steps=steps,
            late=(settings.head_epochs + 1) / settings.epochs,
            factor_late=settings.lr_after / settings.lr,
        ),
        seed=seed,
        config=LoopConfig(log_every=max(1, steps // 50), watch_every=epochs.per_epoch),
        watch=keeper,
        fabric=on,
    )
    keeper.restore(model)
    counts = np.bincount(images.labels.cpu().numpy()[labels.train], minlength=classes)
    return scored(
        model,
        images,
        labels,
        size=size,
        curve=fitted.curve,
        steps=steps,
        guess=float(entropy(counts)),
        facts={
            "lr": settings.lr,
            "steps": steps,
            "epochs": settings.epochs,
            "chosen_step": keeper.step,
            "trials": 1,
            "val_scores": [keeper.score and keeper.score[0]],
        },
    )


def _accuracy(
    model: Classifier, images: Images, places: NDArray[np.int64], *, size: int
) -> Score | None:
    """The share of the images at `places` that the model gets right; nothing of none."""
    truth = images.labels.cpu().numpy()[places]
    said = predict(model, images, places, size=size).argmax(axis=1)
    return (float((said == truth).mean()), 0.0) if len(truth) else None


def _make_views(
    model: Classifier, images: Images, *, size: int, flip: bool
) -> Callable[[Labelled, torch.Generator], tuple[Tensor, Tensor]]:
    """From a batch to what the network sees of it, a half turned upside down, and its labels."""
    channels = model.backbone.channels

    def views(batch: Labelled, chance: torch.Generator) -> tuple[Tensor, Tensor]:
        view = plain_view(
            batch.pixels, batch.is_hu, size=size, channels=channels, window=images.window_hu
        )
        if not flip:
            return view, batch.labels
        flipped = torch.rand(len(view), 1, 1, 1, generator=chance, device=chance.device) < 0.5
        return torch.where(flipped.to(view.device), view.flip(-2), view), batch.labels

    return views


@dataclass(frozen=True)
class Falling(Schedule):
    """A rate that falls once.

    Attributes:
        late: The share of the budget at which it falls.
        factor_late: To what share of the first rate.
    """

    late: float = 1.0
    factor_late: float = 1.0

    def factor(self, progress: float) -> float:
        """The rate at `progress`, as a factor of the first."""
        return self.factor_late if progress >= self.late - 1e-9 else 1.0


class Epochs:
    """Epochs of shuffled images; the last batch of an epoch may be smaller.

    Args:
        images: Where the chosen ones lie.
        places: The chosen ones.
        batch: Images in a batch.
        seed: Of the permutations.
    """

    def __init__(self, images: Images, places: NDArray[np.int64], *, batch: int, seed: int) -> None:
        self.images, self.chosen, self.batch, self.seed = images, places, batch, seed
        self.per_epoch = -(-len(places) // batch)
        self.waited_s = 0.0

    def prefetch(self, first: int, last: int) -> Iterator[Labelled]:
        """Batches `first` to `last - 1`; the images are in memory, so nothing is read ahead."""
        return (pick(self.images, self.places(step)) for step in range(first, last))

    def places(self, step: int) -> NDArray[np.int64]:
        """Places of the images in the batch of `step`."""
        epoch, number = divmod(step, self.per_epoch)
        order = stream(self.seed, "epoch", epoch).permutation(self.chosen)
        return order[number * self.batch : (number + 1) * self.batch]


class _Thawing(Classifier):
    """A classifier with a random head; only the head and the batch norms learn at first."""

    def __init__(self, backbone: Backbone, classes: int, settings: Paper, *, seed: int) -> None:
        super().__init__(backbone, classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "head"))
            self.head.reset_parameters()
        for parameter in self.parameters():
            if parameter.ndim < 2:  # biases and norms, which our optimisers spare the L2 penalty
                parameter.register_hook(partial(_penalised, parameter, settings.weight_decay))  # type: ignore[no-untyped-call]
        self.thaws = settings.head_epochs / settings.epochs
        norms = [part for part in backbone.modules() if isinstance(part, _BatchNorm)]
        learning = {id(parameter) for part in norms for parameter in part.parameters()}
        self.frozen = [p for p in backbone.parameters() if id(p) not in learning]

    def before_step(self, progress: float) -> None:
        """Freeze or thaw what is not head or batch norm."""
        for parameter in self.frozen:
            parameter.requires_grad_(progress >= self.thaws - 1e-9)


def _penalised(parameter: Tensor, decay: float, gradient: Tensor) -> Tensor:
    """The gradient with that of an L2 penalty, as torch's Adam adds it."""
    return gradient + decay * parameter.detach()
