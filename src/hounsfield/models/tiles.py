"""SparK's encoder run on visible patches only: what is hidden is never computed.

On a strip of tiles (see `layout`), pointwise layers, batch norm, and whatever sums over an image's
pixels (group norm, squeeze and excitation, stochastic depth) run as they are and see visible pixels
only. A convolution or a pool first gathers what it sees around each tile from the neighbouring
tiles, zeros where those are hidden, and then runs without padding.

The result is that of the dense network with its hidden pixels set to zero before every layer, as in
Tian et al. 2023, arXiv 2301.03580, section 3.1. Shapes follow from the configuration alone and the
host never waits for the device.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from timm import layers as timm_layers
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hounsfield.errors import ConfigError
from hounsfield.models.backbone import Backbone
from hounsfield.models.layout import Layout, Reach, as_strip

LARGEST_MAP = 4  # the stride at which the paper's pyramid starts; above it is the stem's
SMALL_SIDE = 2  # of a tile: up to here a matrix product beats convolution libraries by 2 to 4 times


class TileEncoder:
    """A backbone's feature maps at the strides 4, 8, ..., on visible patches only.

    It shares the backbone's layers and owns no parameter: whatever is done to the backbone, in
    training or in loading, is done to it.

    Attributes:
        channels: Of the maps, by stride, from the largest map (stride 4) to the smallest.
        unused: Parameters of the network that no map depends on, those of its head.
    """

    def __init__(self, backbone: Backbone) -> None:
        """Trace the backbone once.

        Raises:
            ConfigError: The backbone has a layer that is not exact on tiles; the message names it.
        """
        graph = _trace(backbone)
        self.channels = _keep_pyramid(graph, backbone)
        root = nn.Module()
        root.net, root.spatial = backbone.net, nn.ModuleList(_put_on_tiles(graph, backbone))
        self.run = fx.GraphModule(root, graph)
        reached = {id(parameter) for parameter in self.run.parameters()}
        self.unused = [each for each in backbone.net.parameters() if id(each) not in reached]
        # GraphModule copies the tree of names; with the net itself in its place, layers that are
        # exchanged later (batch norms that gather across processes, say) are found as well.
        self.run.net = backbone.net

    def __call__(self, strip: Tensor, layout: Layout) -> dict[int, Tensor]:
        """The maps of a strip of images, as strips, by stride."""
        return dict(zip(self.channels, self.run(strip, layout), strict=True))


class _OnTiles(nn.Module):
    """A layer that looks around, with its padding found in the neighbouring tiles."""

    def __init__(self, layer: Any, reach: Reach) -> None:
        super().__init__()
        self.layer, self.reach = layer, reach
        self.compute = _WINDOWED[type(layer)]

    def forward(self, strip: Tensor, layout: Layout) -> Tensor:
        return self.compute(self.layer, strip, self.reach, layout)


def _convolve(layer: nn.Conv2d, strip: Tensor, reach: Reach, layout: Layout) -> Tensor:
    weight, bias = layer.weight, layer.bias
    if reach.kernel == 1 and layer.groups == 1:
        pixels = strip.permute(0, 2, 3, 1)[:, :: reach.stride, :: reach.stride]
        return F.linear(pixels, weight.flatten(1), bias).permute(0, 3, 1, 2)
    side = strip.shape[3] // reach.stride
    if side <= SMALL_SIDE and layer.groups == 1:
        weights = weight.permute(0, 2, 3, 1).flatten(1)  # (out channels, kernel * kernel * in)
        with _gathered_again(strip, lambda: layout.columns(strip, reach)) as columns:
            pixels = F.linear(columns, weights, bias)
        return pixels.view(len(strip), -1, side, len(weight)).permute(0, 3, 1, 2)
    with _gathered_again(strip, lambda: layout.halo(strip, reach)) as tiles:
        tiles = F.conv2d(tiles, weight, bias, layer.stride, 0, layer.dilation, layer.groups)
    return as_strip(tiles, batch=len(strip))


def _max_pool(layer: nn.MaxPool2d, strip: Tensor, reach: Reach, layout: Layout) -> Tensor:
    with _gathered_again(strip, lambda: layout.halo(strip, reach, outside=-torch.inf)) as tiles:
        tiles = F.max_pool2d(tiles, layer.kernel_size, layer.stride, 0, layer.dilation)
    return as_strip(tiles, batch=len(strip))


def _avg_pool(layer: nn.AvgPool2d, strip: Tensor, reach: Reach, layout: Layout) -> Tensor:
    tiles = F.avg_pool2d(layout.halo(strip, reach), layer.kernel_size, layer.stride)
    return as_strip(tiles, batch=len(strip))


@contextmanager
def _gathered_again(strip: Tensor, gather: Callable[[], Tensor]) -> Iterator[Tensor]:
    """What `gather` gives from `strip`; what the block keeps for its gradient is gathered anew.

    A halo holds up to nine times the pixels of its tile, and gathering it costs next to nothing. A
    compiler has rules of its own for what it keeps, and keeps halos. As torch does, the gradient
    refuses a strip that was written into since.
    """
    seen = gather()
    if torch.compiler.is_compiling():
        yield seen
        return
    place, shape, version = seen.data_ptr(), seen.shape, strip._version

    def pack(kept: Tensor) -> Tensor | None:
        return None if kept.data_ptr() == place and kept.shape == shape else kept

    def unpack(kept: Tensor | None) -> Tensor:
        if kept is not None:
            return kept
        if strip._version != version:
            raise RuntimeError("a map that is needed for the gradient was written into")
        with torch.no_grad():
            return gather()

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield seen


_WINDOWED: Mapping[type[nn.Module], Callable[[Any, Tensor, Reach, Layout], Tensor]] = {
    nn.Conv2d: _convolve,
    timm_layers.Conv2dSame: _convolve,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
}


class _Pyramid(nn.Module):
    """All feature maps of a timm network, the last one as its head would get it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        last, maps = self.net.forward_intermediates(images)  # type: ignore[operator]
        return [*maps[:-1], last]


# What is exact on a strip as it is: one pixel at a time, over all visible pixels of the batch, or
# over those of an image.
_EXACT_AS_THEY_ARE: tuple[type[nn.Module], ...] = (
    nn.Identity,
    _BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,  # over channels, which a permutation has put last
    nn.Linear,  # likewise
    GlobalResponseNorm,
    timm_layers.DropPath,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardsigmoid,
    nn.Hardswish,
)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        del module_qualified_name
        return isinstance(m, _EXACT_AS_THEY_ARE) or not any(True for _ in m.children())


def _trace(backbone: Backbone) -> fx.Graph:
    if not hasattr(backbone.net, "forward_intermediates"):
        raise _refusal(backbone, "it does not give its feature maps")
    try:
        return _Tracer().trace(_Pyramid(backbone.net))
    except (fx.proxy.TraceError, AssertionError, RuntimeError, TypeError) as error:
        raise _refusal(backbone, f"its computation depends on its data: {error}") from None


def _keep_pyramid(graph: fx.Graph, backbone: Backbone) -> dict[int, int]:
    """Let `graph` return one map a stride, the last of each; their channels by stride."""
    (end,) = (node for node in graph.nodes if node.op == "output")
    net: Any = backbone.net
    facts, maps = net.feature_info, end.args[0]
    if len(facts) != len(maps):
        raise _refusal(backbone, f"it gives {len(maps)} feature maps and lists {len(facts)}")
    maps = {int(fact["reduction"]): node for fact, node in zip(facts, maps, strict=True)}
    channels = {int(fact["reduction"]): int(fact["num_chs"]) for fact in facts}
    channels[backbone.stride] = int(net.num_features)  # after the last convolution, if there is one
    kept = [stride for stride in maps if stride >= LARGEST_MAP]
    end.args = ([maps[stride] for stride in kept],)
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    return {stride: channels[stride] for stride in kept}


def _put_on_tiles(graph: fx.Graph, backbone: Backbone) -> list[nn.Module]:
    """Let every layer of `graph` that looks around do so on tiles.

    The layers that this gives are called `spatial.0`, `spatial.1` and so on in the graph.
    """
    layers = dict(_Pyramid(backbone.net).named_modules())
    images, *nodes, _ = graph.nodes
    with graph.inserting_after(images):
        layout = graph.placeholder("layout")
    spatial: list[nn.Module] = []
    for node in nodes:
        layer = layers.get(str(node.target)) if node.op == "call_module" else None
        if _exact_as_it_is(node, layer):
            continue
        on_tiles = _on_tiles(layer) if layer is not None else None
        if on_tiles is None:
            raise _refusal(backbone, f"{_named(node, layer)} is not exact on tiles")
        node.target = f"spatial.{len(spatial)}"
        node.args = (*node.args, layout)
        spatial.append(on_tiles)
    return spatial


def _exact_as_it_is(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether the node computes on a strip what it computes on masked maps."""
    if isinstance(layer, nn.Dropout):
        return layer.p == 0.0
    if layer is not None:
        pointwise = type(layer).__module__ == "timm.layers.activations"
        return pointwise or isinstance(layer, _EXACT_AS_THEY_ARE)
    if node.target == "mean":  # squeeze and excitation: over an image's visible pixels
        return node.args[1:2] == ((2, 3),)
    if node.target == "reshape":  # a layer scale; a map's shape must stay
        return isinstance(node.args[0], fx.Node) and node.args[0].op == "get_attr"
    return node.op == "get_attr" or node.target in (operator.add, operator.mul, "mul", "permute")


def _named(node: fx.Node, layer: nn.Module | None) -> str:
    if layer is not None:
        return f"{node.target} ({layer})"
    function = getattr(node.target, "__name__", node.target)
    place, kind = [*node.meta["nn_module_stack"].values()][-1]
    return f"{function} in {place} ({kind.__name__})"


def _on_tiles(layer: Any) -> _OnTiles | None:
    """The layer's counterpart for strips; nothing where there is no exact one."""
    if type(layer) not in _WINDOWED or getattr(layer, "padding_mode", "zeros") != "zeros":
        return None
    if getattr(layer, "divisor_override", None) is not None:
        return None
    kernel, stride = _side(layer.kernel_size), _side(layer.stride)
    padding, dilation = _side(layer.padding), _side(getattr(layer, "dilation", 1))
    if kernel is None or stride is None or padding is None or dilation is None:
        return None
    span = dilation * (kernel - 1)
    if type(layer) is timm_layers.Conv2dSame:  # TensorFlow's padding, the odd pixel after
        before = max(span + 1 - stride, 0) // 2
        after = span + 1 - stride - before
    else:
        before, after = padding, span + 1 - stride - padding
        if not after <= before < after + stride:
            return None  # the map does not shrink by the stride exactly
    if getattr(layer, "ceil_mode", False) and (2 * before - span - 1) % stride:
        return None
    if before > 0 and not getattr(layer, "count_include_pad", True):
        return None  # the divisor would depend on the place
    reach = Reach(kernel, stride, dilation, before=before, after=max(after, 0))
    return _OnTiles(layer, reach)


def _side(size: int | str | tuple[int, ...]) -> int | None:
    """The one number that a square size stands for."""
    if isinstance(size, int):
        return size
    return size[0] if isinstance(size, tuple) and len(set(size)) == 1 else None


def _refusal(backbone: Backbone, why: str) -> ConfigError:
    return ConfigError(
        f"backbone {backbone.name!r} cannot be run on visible patches only: {why}. "
        "Choose another, a ResNet, ConvNeXt, RegNet or EfficientNet for example."
    )
