"""The protocol `fair`: one cell, trained with the same budget and the same trials for every arm.

A linear head that starts at zero stands on the backbone, so every arm starts at chance. Batches
hold as many images of each class; the rate warms up and falls on a cosine; the number of steps is
the same at every fraction, so that fewer labels do not mean less training. Learning rate and,
where there are enough validation patients, the step are chosen on the cell's own validation
patients, which shrink with its labels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from hounsfield.augment.views import recipe
from hounsfield.errors import ConfigError, DivergedError
from hounsfield.models.backbone import Backbone
from hounsfield.seeding import seed_of
from hounsfield.study.classifier import Classifier, Keeper, predict
from hounsfield.study.config import Budget
from hounsfield.study.images import Batches, Images, Labelled, by_class
from hounsfield.study.scores import Score
from hounsfield.study.trained import Labels, Trained, scored
from hounsfield.train.loop import fit
from hounsfield.train.optim import OptimConfig
from hounsfield.train.schedule import Schedule
from hounsfield.train.training import LoopConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class _Trial:
    rate: float
    model: Classifier
    curve: list[dict[str, float]]
    step: int
    score: Score | None


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
    view: str = "supervised",
    folder: Path | None = None,
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
        view: The recipe that training images go through.
        folder: Where each learning rate's training leaves its state, shows a bar, and goes on from
            where it was cut off; without it nothing touches the disk.

    Raises:
        DivergedError: The training diverged at every learning rate.
        InterruptedRun: Stopped by the user, where there is a folder.
    """
    rates = budget.rates if labels.some else (budget.rates[len(budget.rates) // 2],)
    trials = [
        _trial(
            start(), images, labels, rate,
            classes=classes, size=size, budget=budget, layer_decay=layer_decay, seed=seed, on=on,
            view=view, folder=folder and folder / str(rate),
        )
        for rate in rates
    ]  # fmt: skip
    done = [trial for trial in trials if trial is not None]
    if not done:
        tried = ", ".join(f"{rate:g}" for rate in rates)
        raise DivergedError(f"the training diverged at every learning rate ({tried}). Lower them.")
    best = max(done, key=lambda trial: trial.score or (-math.inf, 0.0))
    return scored(
        best.model,
        images,
        labels,
        size=size,
        curve=best.curve,
        steps=budget.steps,
        guess=math.log(classes),
        facts={
            "lr": best.rate,
            "steps": budget.steps,
            "chosen_step": best.step,
            "trials": len(trials),
            "rates": list(rates),
            "val_scores": [trial.score[0] if trial and trial.score else None for trial in trials],
            "diverged": sum(trial is None for trial in trials),
            "lr_at_edge": len(rates) > 1 and best.rate in (rates[0], rates[-1]),
        },
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
    view: str,
    folder: Path | None,
) -> _Trial | None:
    """One training at one learning rate; nothing where it diverged."""
    model = Classifier(backbone, classes).to(images.pixels.device)
    views = recipe(view, size=size, channels=backbone.channels, window=images.window_hu)
    batches = Batches(
        images,
        by_class(images, labels.train),
        batch=budget.batch,
        seed=seed_of(seed, "batches"),
    )
    look_every = max(1, budget.steps // budget.looks)
    keeper = Keeper(lambda: labels.val_score(predict(model, images, labels.val, size=size)))
    try:
        fitted = fit(
            model,
            batches=batches,
            make_views=lambda batch, chance: _views(views, batch, chance),
            optimiser=OptimConfig(name="adamw", lr=rate, weight_decay=budget.weight_decay),
            schedule=Schedule(steps=budget.steps, warm_up=budget.warm_up),
            seed=seed,
            config=LoopConfig(
                log_every=max(1, budget.steps // 50),
                watch_every=look_every,
                checkpoint_every=look_every,
                tensorboard=False,
            ),
            watch=keeper if labels.enough else None,
            memory=keeper,
            fabric=on,
            folder=folder,
            label=f"learning rate {rate:g}" if folder else None,
            factors=layer_factors(backbone, layer_decay),
        )
    except DivergedError:
        return None
    if keeper.seen != budget.steps:
        keeper.look(model, budget.steps)
    keeper.restore(model)
    return _Trial(rate, model, list(fitted.curve), keeper.step, keeper.score)


def _views(
    views: Callable[..., list[Tensor]], batch: Labelled, chance: torch.Generator
) -> tuple[Tensor, Tensor]:
    return views(batch.pixels, batch.is_hu, chance)[0], batch.labels
