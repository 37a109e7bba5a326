"""Slow copies: networks that follow another one as an exponential moving average."""

import copy
from typing import TypeVar

import torch
from timm.layers import DropPath
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def slow_copy(fast: M) -> M:
    """A copy of `fast` that no optimiser moves and that drops no path: a target has no chance.

    So Caron et al. do it, arXiv 2104.14294, whose teacher has no stochastic depth either.
    """
    slow = copy.deepcopy(fast).requires_grad_(requires_grad=False)
    for layer in slow.modules():
        if isinstance(layer, DropPath):
            layer.drop_prob = 0.0
    return slow


@torch.no_grad()
def ema_update(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Move every parameter of `slow` to `momentum * slow + (1 - momentum) * fast`.

    Buffers are left alone: batch norm's running statistics are each network's own.
    """
    weights: list[Tensor] = list(slow.parameters())
    targets: list[Tensor] = list(fast.parameters())
    torch._foreach_lerp_(weights, targets, 1 - momentum)
