"""The small networks on top of a backbone that pre-training throws away."""

from itertools import pairwise

from torch import nn


def mlp(*dims: int) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them: `(batch, dims[0])` to `dims[-1]`."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(dims):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mlp_batch_norm(*dims: int) -> nn.Sequential:
    """As `mlp`, with batch norm before every ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(dims):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-2])
