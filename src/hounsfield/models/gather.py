"""Several processes, one batch: a differentiable gather, and batch norm over the joint batch.

With these, the averaged gradient of several processes is that of one process on the joint batch,
in the order of their ranks. Outside a process group everything here is the identity.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


def processes() -> int:
    """How many processes share a step."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gather(part: Tensor) -> Tensor:
    """The parts of all processes, first dimensions joined: `(processes * batch, ...)`.

    Every process must give the same shape. The gradient of a part is the sum over the processes
    of what each one's loss asks of it.
    """
    return _Gather.apply(part) if processes() > 1 else part


def own_rows(joint: Tensor) -> Tensor:
    """This process's rows of what `gather` gave."""
    return joint.chunk(processes())[distributed.get_rank()] if processes() > 1 else joint


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        del ctx
        parts = [torch.empty_like(part) for _ in range(processes())]
        distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return own_rows(total)


def synchronise(module: nn.Module) -> nn.Module:
    """`module` with every batch norm replaced by one over the joint batch; names stay.

    torch's SyncBatchNorm refuses the CPU, and would not know timm's norms with an activation.
    """
    if isinstance(module, _BatchNorm):
        return module if isinstance(module, JointBatchNorm) else JointBatchNorm(module)
    for name, child in module.named_children():
        setattr(module, name, synchronise(child))
    return module


class JointBatchNorm(_BatchNorm):
    """Batch norm with the statistics of the joint batch, any number of dimensions.

    Takes over the parameters, the buffers and the children (timm's drop and activation, applied
    afterwards in their order) of the layer that it replaces.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(
            norm.num_features,
            norm.eps,
            norm.momentum,
            affine=norm.affine,
            track_running_stats=norm.track_running_stats,
        )
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self._modules.update(norm._modules)
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        del input

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalised `(batch, channels, ...)`, then whatever the replaced layer did after."""
        uses_batch = self.training or self.running_mean is None
        normed = self._joint(input) if uses_batch and processes() > 1 else super().forward(input)
        for child in self.children():
            normed = child(normed)
        return normed

    def _joint(self, x: Tensor) -> Tensor:
        others = [dim for dim in range(x.dim()) if dim != 1]
        exact = x.to(torch.promote_types(x.dtype, torch.float32))  # as torch's own, under bf16
        variance, mean = torch.var_mean(exact, dim=others, correction=0)
        means, variances = gather(torch.stack([mean, variance])[None]).unbind(dim=1)
        mean = means.mean(dim=0)  # every process has the same number of values
        variance = (variances + (means - mean) ** 2).mean(dim=0)
        if self.training and self.track_running_stats:
            self._track(mean.detach(), variance.detach(), count=processes() * x[:, 0].numel())
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale = torch.rsqrt(variance + self.eps)
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return torch.addcmul(shift.view(shape), exact, scale.view(shape)).to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        assert self.running_mean is not None  # noqa: S101 - for mypy: it tracks
        assert self.running_var is not None  # noqa: S101
        assert self.num_batches_tracked is not None  # noqa: S101
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(count - 1, 1), share)
