"""SparK's encoder the obvious way: dense layers that see zeros where the image is hidden.

Hidden pixels are put to zero before every layer that looks around, and norms and squeezes count the
visible ones only: what the paper describes and its authors' code computes. The mask is an argument.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.layers.grn import GlobalResponseNorm
from timm.layers.squeeze_excite import SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hounsfield.losses.masked_mse import content, patchify
from hounsfield.methods.spark import SparK


class Mask:
    """Which pixels are visible, at any size of a map."""

    def __init__(self, patches: Tensor) -> None:
        """Patches: `(batch, 1, rows, columns)`, boolean, True where visible."""
        self.patches = patches
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def at(self, height: int) -> tuple[Tensor, Tensor]:
        """`(batch, 1, height, width)` of zeros and ones, and the numbers of the visible pixels."""
        if height not in self._known:
            side = height // self.patches.shape[2]
            pixels = self.patches.repeat_interleave(side, 2).repeat_interleave(side, 3)
            self._known[height] = pixels.float(), pixels.flatten().nonzero().flatten()
        return self._known[height]

    def hide(self, maps: Tensor) -> Tensor:
        """The maps `(batch, channels, height, width)`, zero where hidden."""
        if _is_hidden(maps):
            return maps
        return maps * self.at(maps.shape[2])[0].to(maps.dtype)


def masked_maps(net: nn.Module, images: Tensor, mask: Mask) -> dict[int, Tensor]:
    """Feature maps of a timm network by stride, from 4 up, zero where hidden.

    The last one is what the network's head would get.
    """
    with _masked(net, mask):
        last, maps = net.forward_intermediates(images)
    strides = [fact["reduction"] for fact in net.feature_info]
    by_stride = dict(zip(strides, (*maps[:-1], last), strict=True))
    return {stride: mask.hide(each) for stride, each in by_stride.items() if stride >= 4}


def masked_spark_loss(spark: SparK, images: Tensor, patches: Tensor) -> Tensor:
    """The loss of `spark` on images `(batch, channels, height, width)`, computed densely.

    Args:
        spark: Its layers are used; its encoder on tiles is not.
        images: `(batch, channels, height, width)`.
        patches: The mask, `(batch, 1, rows, columns)`, True where visible.
    """
    mask = Mask(patches)
    drawn: dict[int, Tensor] = {}
    for stride, maps in masked_maps(spark.backbone.net, images, mask).items():
        if str(stride) not in spark.densify:
            continue
        densify = spark.densify[str(stride)]
        with _masked(densify.norm, mask):
            normed = densify.norm(maps)
        visible = mask.at(maps.shape[2])[0].bool()
        drawn[stride] = densify.proj(normed.where(visible, densify.token.view(1, -1, 1, 1)))
    side = spark.backbone.stride
    target, prediction = patchify(images, side), patchify(spark.decoder(drawn), side)
    spread = (target.var(dim=-1, keepdim=True) + 1e-6).sqrt()
    truth = (target - target.mean(dim=-1, keepdim=True)) / spread
    weights = content(target, empty_std=spark.config.empty_std) * ~patches.flatten(1)
    return (((prediction - truth) ** 2).mean(dim=-1) * weights).sum() / weights.sum()


@contextmanager
def _masked(net: nn.Module, mask: Mask) -> Iterator[None]:
    """Every layer of `net` computes with the mask, until the end of the block."""
    changed = []
    for layer in net.modules():
        rule = next((rule for kind, rule in RULES.items() if isinstance(layer, kind)), None)
        if rule is not None:
            layer.forward = partial(rule, type(layer).forward, layer, mask)
            changed.append(layer)
    try:
        yield
    finally:
        for layer in changed:
            del layer.forward


Forward = Callable[..., Tensor]


def _hide_first(forward: Forward, layer: Any, mask: Mask, maps: Tensor) -> Tensor:
    """Zeros where hidden, then dense; a layer that looks at one pixel needs no zeros."""
    alone = layer.kernel_size in (1, (1, 1))
    return forward(layer, maps if alone else mask.hide(maps))


def _batch_norm(forward: Forward, layer: Any, mask: Mask, maps: Tensor) -> Tensor:
    """Batch norm over the visible pixels, picked one by one, and put back."""
    visible = mask.at(maps.shape[2])[1]
    normed = forward(layer, _Pick.apply(maps, visible)[:, :, None, None]).flatten(1)
    return _hidden(_Put.apply(normed, visible, maps.shape))


class _Pick(torch.autograd.Function):
    """The pixels `(visible, channels)` of maps; none is picked twice, so gradients need no sum."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, visible: Tensor) -> Tensor:
        ctx.save_for_backward(visible)
        ctx.shape = maps.shape
        return _picked(maps, visible)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _put(gradient, *ctx.saved_tensors, ctx.shape), None


class _Put(torch.autograd.Function):
    """The other way round: maps that are zero but for these pixels."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, visible: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(visible)
        return _put(pixels, visible, shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _picked(gradient, *ctx.saved_tensors), None, None


def _picked(maps: Tensor, visible: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).index_select(0, visible)


def _put(pixels: Tensor, visible: Tensor, shape: torch.Size) -> Tensor:
    whole = torch.empty(
        shape, dtype=pixels.dtype, device=pixels.device, memory_format=torch.channels_last
    ).zero_()
    whole.permute(0, 2, 3, 1).view(-1, shape[1]).index_copy_(0, visible, pixels)
    return whole


def _relu(forward: Forward, layer: nn.ReLU, mask: Mask, maps: Tensor) -> Tensor:
    """As it is: what was zero stays zero."""
    del mask
    hidden = _is_hidden(maps)
    after = forward(layer, maps)
    return _hidden(after) if hidden else after


def _hidden(maps: Tensor) -> Tensor:
    """The maps, marked as zero where hidden, so that they are not multiplied by zero again."""
    maps.hidden_at = maps._version  # type: ignore[attr-defined]
    return maps


def _is_hidden(maps: Tensor) -> bool:
    """Whether the maps were marked and nothing was written into them since."""
    return getattr(maps, "hidden_at", None) == maps._version


def _group_norm(forward: Forward, layer: nn.GroupNorm, mask: Mask, maps: Tensor) -> Tensor:
    """Group norm over an image's visible pixels, an image at a time."""
    out = torch.zeros_like(maps)
    visible = mask.at(maps.shape[2])[0].bool()
    for image, seen in enumerate(visible[:, 0]):
        out[image, :, seen] = forward(layer, maps[image : image + 1, :, seen])[0]
    return out


def _squeeze_excite(forward: Forward, layer: SEModule, mask: Mask, maps: Tensor) -> Tensor:
    """The mean is that of the visible pixels."""
    del forward
    squeezed = layer.act(layer.bn(layer.fc1(_visible_mean(mask, maps))))
    return maps * layer.gate(layer.fc2(squeezed))


def _squeeze_excite_of_efficientnet(
    forward: Forward, layer: SqueezeExcite, mask: Mask, maps: Tensor
) -> Tensor:
    """The mean is that of the visible pixels."""
    del forward
    squeezed = layer.act1(layer.conv_reduce(_visible_mean(mask, maps)))
    return maps * layer.gate(layer.conv_expand(squeezed))


def _visible_mean(mask: Mask, maps: Tensor) -> Tensor:
    visible = mask.at(maps.shape[2])[0].to(maps.dtype)
    return (maps * visible).sum((2, 3), keepdim=True) / visible.sum((2, 3), keepdim=True)


def _response_norm(forward: Forward, layer: GlobalResponseNorm, mask: Mask, maps: Tensor) -> Tensor:
    """The norm is that of the visible pixels; the layer may hold its channels last."""
    if layer.channel_dim != -1:
        return forward(layer, mask.hide(maps))
    return forward(layer, mask.hide(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


RULES: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv2d: _hide_first,
    nn.MaxPool2d: _hide_first,
    nn.AvgPool2d: _hide_first,
    _BatchNorm: _batch_norm,
    nn.ReLU: _relu,
    nn.GroupNorm: _group_norm,
    GlobalResponseNorm: _response_norm,
    SEModule: _squeeze_excite,
    SqueezeExcite: _squeeze_excite_of_efficientnet,
}
