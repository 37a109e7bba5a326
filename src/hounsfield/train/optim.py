"""Optimisers by name, and the rates that they follow."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from timm.optim import Lamb, Lars
from torch.nn import Parameter
from torch.optim import Optimizer

from hounsfield.config import Config
from hounsfield.train.schedule import half_cosine


class OptimConfig(Config):
    """An optimiser and its rates.

    Attributes:
        name: adamw (arXiv 1711.05101), adam (arXiv 1412.6980), sgd with momentum, lars (arXiv
            1708.03888) or lamb (arXiv 1904.00962), the last two in timm's version.
        lr: The peak learning rate at a batch of `reference_batch` images; it scales linearly with
            the batch (Goyal et al., arXiv 1706.02677).
        reference_batch: None keeps `lr` whatever the batch.
        weight_decay: Decoupled for adamw, an L2 penalty for the others as in their papers. Biases
            and norms are spared.
        weight_decay_end: Where a half cosine leads the weight decay; None keeps it.
        momentum: For sgd and lars.
        betas: For adamw, adam and lamb.
        clip: Greatest norm of the gradient; None clips nothing.
        warm_up: Share of the budget in which the rate climbs.
        start_factor: Where it starts from, as a factor of the peak.
        final_factor: Where it ends.
    """

    name: Literal["adamw", "adam", "sgd", "lars", "lamb"] = "adamw"
    lr: PositiveFloat = 1e-3
    reference_batch: PositiveInt | None = None
    weight_decay: NonNegativeFloat = 0.05
    weight_decay_end: NonNegativeFloat | None = None
    momentum: float = Field(default=0.9, ge=0, lt=1)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: PositiveFloat | None = None
    warm_up: float = Field(default=0.0, ge=0, lt=1)
    start_factor: float = Field(default=0.0, ge=0, le=1)
    final_factor: float = Field(default=0.0, ge=0, le=1)

    def peak(self, batch: int) -> float:
        """The peak learning rate at a batch of `batch` images."""
        return self.lr if self.reference_batch is None else self.lr * batch / self.reference_batch


def build(
    parameters: Iterable[Parameter],
    config: OptimConfig,
    *,
    batch: int,
    factors: Mapping[Parameter, float] | None = None,
) -> Optimizer:
    """The optimiser of `config` over the parameters that want a gradient.

    Args:
        parameters: Of one dimension (biases, norms): no weight decay, and no layer-wise scaling
            by lars, as in LARS's users (BYOL, arXiv 2006.07733, section 3.2).
        config: The optimiser and its rates.
        batch: Images that one update sees.
        factors: Of the learning rates of some parameters; that of the others is 1.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    factor_of = {parameter: (factors or {}).get(parameter, 1.0) for parameter in wanted}
    lr = config.peak(batch)
    groups: list[dict[str, Any]] = [
        {
            "params": members,
            "weight_decay": config.weight_decay if decays else 0.0,
            "decays": decays,
            "peak_lr": lr * factor,
        }
        for factor in sorted(set(factor_of.values()), reverse=True)
        for decays in (True, False)
        if (members := [p for p in wanted if factor_of[p] == factor and (p.ndim > 1) == decays])
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=config.betas)
    if config.name == "adam":
        return torch.optim.Adam(groups, lr=lr, betas=config.betas)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum)
    if config.name == "lamb":
        # The loop clips; timm's own clipping to a norm of 1 would come on top.
        return Lamb(groups, lr=lr, betas=config.betas, max_grad_norm=None)
    adapted = [{**group, "always_adapt": group["decays"]} for group in groups]
    return Lars(adapted, lr=lr, momentum=config.momentum)


def set_rates(
    optimiser: Optimizer, *, factor: float, progress: float, config: OptimConfig
) -> float:
    """Set the rates of this step, and give back the highest learning rate.

    Args:
        optimiser: As `build` made it.
        factor: The learning rate as a factor of its peak.
        progress: 0 to 1 over the budget; leads the weight decay.
        config: The optimiser's configuration.
    """
    end = config.weight_decay if config.weight_decay_end is None else config.weight_decay_end
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor
        if group["decays"]:
            group["weight_decay"] = half_cosine(config.weight_decay, end, progress)
    return float(optimiser.param_groups[0]["lr"])
