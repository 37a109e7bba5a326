"""Slow copies: networks that follow another one as an exponential moving average."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def slow_copy(fast: M) -> M:
    """A copy of `fast` that no optimiser moves."""
    return copy.deepcopy(fast).requires_grad_(requires_grad=False)


@torch.no_grad()
def ema_update(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Move every parameter of `slow` to `momentum * slow + (1 - momentum) * fast`.

    Buffers are left alone: batch norm's running statistics are each network's own.
    """
    weights: list[Tensor] = list(slow.parameters())
    targets: list[Tensor] = list(fast.parameters())
    torch._foreach_lerp_(weights, targets, 1 - momentum)
