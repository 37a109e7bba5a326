"""The protocol `fair`: one cell, trained with the same budget and the same trials for every arm.

A linear head that starts at zero stands on the backbone, so every arm starts at chance. Batches
hold as many images of each class; the rate warms up and falls on a cosine; the number of steps is
the same at every fraction, so that fewer labels do not mean less training. Learning rate and,
where there are enough validation patients, the step are chosen on the cell's own validation
patients, which shrink with its labels.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn import functional as F

from hounsfield.augment.views import recipe
from hounsfield.errors import ConfigError, DivergedError
from hounsfield.methods.base import Step
from hounsfield.models.backbone import Backbone
from hounsfield.seeding import seed_of
from hounsfield.study.config import Budget
from hounsfield.study.images import Batches, Images, Labelled, by_class
from hounsfield.train.loop import fit
from hounsfield.train.optim import OptimConfig
from hounsfield.train.schedule import Schedule
from hounsfield.train.training import LoopConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ENOUGH = 3  # validation patients a class, below which the last step is taken
FELL = 0.9  # the training loss must end below this share of the loss of guessing
EVALUATION_BATCH = 256


class Classifier(nn.Module):
    """A backbone and a linear head that starts at zero."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.embed_dim, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def logits(self, images: Tensor) -> Tensor:
        """`(batch, classes)` of images `(batch, channels, height, width)`."""
        return self.head(self.backbone(images))

    def forward(self, views: tuple[Tensor, Tensor]) -> Step:
        """Cross-entropy of a batch of images and their labels."""
        images, labels = views
        return Step(F.cross_entropy(self.logits(images), labels))

    def before_step(self, progress: float) -> None:
        """Nothing follows a schedule here."""
        del progress

    def after_step(self, progress: float) -> None:
        """Nothing is updated here but by the optimiser."""
        del progress


@dataclass(frozen=True)
class Labels:
    """The images of a cell, as places in the task's images.

    Attributes:
        train, val, test: Places, ascending.
        val_score: From logits `(val, classes)` to what the cell maximises; nothing where
            validation lacks a class.
        enough: Whether every class has `ENOUGH` validation patients, so that a step is chosen.
        some: Whether every class has one, so that a learning rate is chosen.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    val_score: Callable[[NDArray[np.float32]], float | None]
    enough: bool
    some: bool


@dataclass(frozen=True)
class Trained:
    """What a protocol gives back for a cell.

    Attributes:
        val, test: Logits `(images, classes)`.
        curve: Lines of step, loss, lr and, where it was looked at, val.
        facts: What goes into `cell.json`.
        unfinished: Why the training counts as unfinished; empty where it does not.
        model: The network of the best trial, where the protocol trains one.
    """

    val: NDArray[np.float32]
    test: NDArray[np.float32]
    curve: list[dict[str, float]]
    facts: dict[str, Any] = field(default_factory=dict)
    unfinished: str = ""
    model: Classifier | None = None


@dataclass(frozen=True)
class _Trial:
    rate: float
    model: Classifier
    curve: list[dict[str, float]]
    step: int
    score: float | None


def fair(
    start: Callable[[], Backbone],
    images: Images,
    labels: Labels,
    *,
    classes: int,
    size: int,
    budget: Budget,
    layer_decay: float,
    seed: int,
    on: "Fabric",
) -> Trained:
    """Fine-tune once for every learning rate, keep the best, score validation and test.

    Args:
        start: A fresh copy of the arm's backbone.
        images: Of the task.
        labels: Of the cell.
        classes: How many there are.
        size: Pixels of what the network sees.
        budget: The same for every arm.
        layer_decay: Factor of the rate from a stage to the one below; 1 for an arm that starts
            from chance, whose lower stages have nothing to keep.
        seed: Of batches and views; equal for the arms of a comparison.
        on: Device and precision.

    Raises:
        DivergedError: The training diverged at every learning rate.
    """
    rates = budget.rates if labels.some else (budget.rates[len(budget.rates) // 2],)
    trials = [
        _trial(
            start(), images, labels, rate,
            classes=classes, size=size, budget=budget, layer_decay=layer_decay, seed=seed, on=on,
        )
        for rate in rates
    ]  # fmt: skip
    done = [trial for trial in trials if trial is not None]
    if not done:
        tried = ", ".join(f"{rate:g}" for rate in rates)
        raise DivergedError(f"the training diverged at every learning rate ({tried}). Lower them.")
    best = max(reversed(done), key=lambda trial: -math.inf if trial.score is None else trial.score)
    first, last = fall(best.curve, budget.steps)
    guess = math.log(classes)
    return Trained(
        val=predict(best.model, images, labels.val, size=size),
        test=predict(best.model, images, labels.test, size=size),
        curve=best.curve,
        facts={
            "lr": best.rate,
            "steps": budget.steps,
            "chosen_step": best.step,
            "trials": len(trials),
            "rates": list(rates),
            "val_scores": [trial.score if trial else None for trial in trials],
            "diverged": sum(trial is None for trial in trials),
            "lr_at_edge": len(rates) > 1 and best.rate in (rates[0], rates[-1]),
            "train_loss_first": first,
            "train_loss_last": last,
            "train_loss_guess": guess,
        },
        unfinished=unfinished(last, guess),
        model=best.model,
    )


def layer_factors(backbone: Backbone, decay: float) -> dict[nn.Parameter, float]:
    """Of each parameter's learning rate: `decay` once for the last stage, twice for the one below.

    After BEiT (arXiv 2106.08254, appendix H), with a network's stages (stem, then as timm groups
    them) in the place of a transformer's layers.
    """
    net = backbone.net
    if decay == 1:
        return {}
    if not hasattr(net, "group_matcher"):
        raise ConfigError(
            f"timm does not say which stages {backbone.name} has, so its rate cannot fall from "
            "stage to stage. Set budget.layer_decay = 1, or choose another backbone."
        )
    matcher = net.group_matcher(coarse=True)  # type: ignore[operator]
    stages = group_parameters(net, matcher, reverse=True)
    parameters = dict(net.named_parameters())
    top = max(stages.values()) + 1
    return {parameters[name]: decay ** (top - stage) for name, stage in stages.items()}


def fall(curve: Sequence[dict[str, float]], steps: int) -> tuple[float, float]:
    """Mean training loss of the first and of the last tenth of the steps."""
    lines = [line for line in curve if "loss" in line]
    first = [line["loss"] for line in lines if line["step"] <= steps / 10] or [lines[0]["loss"]]
    last = [line["loss"] for line in lines if line["step"] > steps * 0.9] or [lines[-1]["loss"]]
    return float(np.mean(first)), float(np.mean(last))


def unfinished(last: float, guess: float) -> str:
    """Why a training counts as unfinished, or nothing.

    Guessing has a loss that is known: the entropy of the classes in a batch. A training whose
    last tenth has not come below `FELL` of it has learnt next to nothing even about its own
    images, so its score tells of the budget and not of the arm.
    """
    if last <= FELL * guess:
        return ""
    return (
        f"the training loss ended at {last:.3f}, not clearly below the {guess:.3f} of guessing; "
        "give more steps or higher learning rates"
    )


@torch.inference_mode()
def predict(
    model: Classifier, images: Images, places: NDArray[np.int64], *, size: int
) -> NDArray[np.float32]:
    """Logits `(places, classes)` of images as they are, without augmentation."""
    plain = recipe("plain", size=size, channels=model.backbone.channels, window=images.window_hu)
    chance = torch.Generator().manual_seed(0)  # the recipe draws nothing
    training = model.training
    model.eval()
    logits = []
    for first in range(0, len(places), EVALUATION_BATCH):
        part = torch.from_numpy(places[first : first + EVALUATION_BATCH]).to(images.pixels.device)
        (view,) = plain(images.pixels[part], images.is_hu[part], chance)
        logits.append(model.logits(view).float().cpu().numpy())
    model.train(training)
    return np.concatenate([np.zeros((0, model.head.out_features), np.float32), *logits])


def _trial(
    backbone: Backbone,
    images: Images,
    labels: Labels,
    rate: float,
    *,
    classes: int,
    size: int,
    budget: Budget,
    layer_decay: float,
    seed: int,
    on: "Fabric",
) -> _Trial | None:
    """One training at one learning rate; nothing where it diverged."""
    model = Classifier(backbone, classes).to(images.pixels.device)
    view = recipe("supervised", size=size, channels=backbone.channels, window=images.window_hu)
    batches = Batches(
        images,
        by_class(images, labels.train),
        batch=budget.batch,
        seed=seed_of(seed, "batches"),
    )
    look_every = max(1, budget.steps // budget.looks)
    keeper = _Keeper(lambda: predict(model, images, labels.val, size=size), labels)
    try:
        fitted = fit(
            model,
            batches=batches,
            make_views=lambda batch, chance: _views(view, batch, chance),
            optimiser=OptimConfig(name="adamw", lr=rate, weight_decay=budget.weight_decay),
            schedule=Schedule(steps=budget.steps, warm_up=budget.warm_up),
            seed=seed,
            config=LoopConfig(log_every=max(1, budget.steps // 50), watch_every=look_every),
            watch=keeper if labels.enough else None,
            fabric=on,
            factors=layer_factors(backbone, layer_decay),
        )
    except DivergedError:
        return None
    if keeper.seen != budget.steps:
        keeper.look(model, budget.steps)
    keeper.restore(model)
    return _Trial(rate, model, list(fitted.curve), keeper.step, keeper.score)


def _views(
    view: Callable[..., list[Tensor]], batch: Labelled, chance: torch.Generator
) -> tuple[Tensor, Tensor]:
    return view(batch.pixels, batch.is_hu, chance)[0], batch.labels


class _Keeper:
    """Looks at validation now and then, and keeps the weights that did best; later ones in a tie.

    Where validation is too small to say, there is no score and every look replaces the last.
    """

    def __init__(self, see: Callable[[], NDArray[np.float32]], labels: Labels) -> None:
        self.see, self.labels = see, labels
        self.seen, self.step = 0, 0
        self.score: float | None = None
        self.state: dict[str, Tensor] = {}

    def __call__(self, model: nn.Module, line: Mapping[str, float]) -> dict[str, float]:
        score = self.look(model, int(line["step"]))
        return {} if score is None else {"val": score}

    def look(self, model: nn.Module, step: int) -> float | None:
        score, self.seen = self.labels.val_score(self.see()), step
        if self.score is None or score is None or score >= self.score:
            self.score, self.step = score, step
            self.state = copy.deepcopy(model.state_dict())
        return score

    def restore(self, model: nn.Module) -> None:
        model.load_state_dict(self.state)
