"""SparK's encoder run on visible patches only: what is hidden is never computed.

Every image of a batch keeps the same number of patches, so their pieces of a feature map, the
tiles, pack into one dense tensor without a hole: a strip `(batch, channels, kept * side, side)`, an
image's tiles one above the other. On a strip, pointwise layers, batch norm, and whatever sums over
an image's pixels (group norm, squeeze and excitation, stochastic depth) run as they are and see
visible pixels only. A convolution or a pool that looks further first gathers a halo around each
tile from the neighbouring tiles, zeros where those are hidden, and then runs without padding.

The result is that of the dense network with its hidden pixels set to zero before every layer, as in
Tian et al. 2023, arXiv 2301.03580, section 3.1. Shapes follow from the configuration alone and the
host never waits for the device.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from timm import layers as timm_layers
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hounsfield.errors import ConfigError
from hounsfield.models.backbone import Backbone

LARGEST_MAP = 4  # the stride at which the paper's pyramid starts; above it is the stem's


class Layout:
    """Which patches of a batch are visible, and where each tile finds its neighbours.

    Attributes:
        visible: Visible patches of each image, `(batch, kept)`, numbered row by row, ascending.
        grid: Rows and columns of patches in an image.
    """

    def __init__(self, visible: Tensor, *, grid: tuple[int, int]) -> None:
        self.visible = visible
        self.grid = grid
        batch, kept = visible.shape
        order = torch.arange(batch * kept, device=visible.device).view(batch, kept)
        absent = visible.new_full((batch, grid[0] * grid[1]), -1)
        self.slots = absent.scatter(1, visible, order)  # place in the pack, -1 where hidden
        self._sources: dict[tuple[int, int, int], Tensor] = {}

    @property
    def hidden(self) -> Tensor:
        """Which patches are hidden, `(batch, patches)`, boolean."""
        return self.slots < 0

    def pack(self, images: Tensor) -> Tensor:
        """The visible patches of images `(batch, channels, height, width)`, as a strip."""
        (rows, columns), (batch, kept) = self.grid, self.visible.shape
        channels, side = images.shape[1], images.shape[2] // rows
        cut = images.reshape(batch, channels, rows, side, columns, side)
        patches = cut.permute(0, 2, 4, 3, 5, 1).reshape(batch * rows * columns, -1)
        tiles = patches.index_select(0, self._places())
        return tiles.reshape(batch, kept * side, side, channels).permute(0, 3, 1, 2)

    def unpack(self, strip: Tensor, fill: Tensor) -> Tensor:
        """Whole maps `(batch, channels, height, width)`, `fill` `(channels,)` where hidden."""
        (rows, columns), side, channels = self.grid, strip.shape[3], strip.shape[1]
        batch = len(strip)
        blank = fill.to(strip.dtype).expand(batch * rows * columns, side, side, channels)
        tiles = strip.permute(0, 2, 3, 1).reshape(-1, side, side, channels)
        patches = blank.index_copy(0, self._places(), tiles)
        whole = patches.view(batch, rows, columns, side, side, channels).permute(0, 5, 1, 3, 2, 4)
        return whole.reshape(batch, channels, rows * side, columns * side)

    def halo(self, strip: Tensor, *, before: int, after: int, outside: float = 0.0) -> Tensor:
        """Tiles with their surroundings, `(batch * kept, channels, reach, reach)`.

        Args:
            strip: `(batch, channels, kept * side, side)`.
            before: Pixels to gather above and left of each tile; `reach = before + side + after`.
            after: Pixels to gather below and to the right.
            outside: The value beyond the image; that of a hidden pixel is 0.
        """
        channels, side = strip.shape[1], strip.shape[3]
        reach = before + side + after
        rows = strip.permute(0, 2, 3, 1).reshape(-1, channels)
        if reach > side:
            ends = (rows.new_zeros(1, channels), rows.new_full((1, channels), outside))
            rows = torch.cat([rows, *ends]).index_select(0, self.sources(side, before, after))
        return rows.view(-1, reach, reach, channels).permute(0, 3, 1, 2)

    def sources(self, side: int, before: int, after: int) -> Tensor:
        """For every pixel of every tile with its halo, the packed pixel that it shows.

        Computed once a batch for all layers that look equally far. Two numbers beyond the last
        pixel stand for a hidden pixel and for one outside the image.
        """
        key = (side, before, after)
        if key not in self._sources:
            self._sources[key] = self._find_sources(side, before, after)
        return self._sources[key]

    def _find_sources(self, side: int, before: int, after: int) -> Tensor:
        (rows, columns), pixels = self.grid, self.visible.numel() * side**2
        steps = torch.arange(-before, side + after, device=self.visible.device)
        patch_steps = steps.div(side, rounding_mode="floor")
        row = (self.visible // columns)[..., None, None] + patch_steps[:, None]
        column = (self.visible % columns)[..., None, None] + patch_steps
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        patch = row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)
        slot = self.slots.gather(1, patch.flatten(1)).view_as(patch)  # (batch, kept, reach, reach)
        within = steps - patch_steps * side
        pixel = slot * side**2 + within[:, None] * side + within
        return pixel.where(slot >= 0, pixels).where(inside, pixels + 1).flatten()

    def _places(self) -> Tensor:
        """Of every tile, its patch's number within the batch, `(batch * kept,)`."""
        first = torch.arange(len(self.visible), device=self.visible.device) * self.slots.shape[1]
        return (self.visible + first[:, None]).flatten()


class TileEncoder:
    """A backbone's feature maps at the strides 4, 8, ..., on visible patches only.

    It shares the backbone's layers and owns no parameter: whatever is done to the backbone, in
    training or in loading, is done to it.

    Attributes:
        channels: Of the maps, by stride, from the largest map (stride 4) to the smallest.
        patch: Side of a patch in pixels, the backbone's stride.
        unused: Parameters of the network that no map depends on, those of its head.
    """

    def __init__(self, backbone: Backbone) -> None:
        """Trace the backbone once.

        Raises:
            ConfigError: The backbone has a layer that is not exact on tiles; the message names it.
        """
        graph = _trace(backbone)
        self.patch = backbone.stride
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

    def __init__(self, layer: Any, *, before: int, after: int) -> None:
        super().__init__()
        self.layer, self.before, self.after = layer, before, after
        self.unpadded, self.outside = _WINDOWED[type(layer)]

    def forward(self, strip: Tensor, layout: Layout) -> Tensor:
        tiles = layout.halo(
            strip, before=self.before, after=self.after, outside=self.outside
        )  # (batch * kept, channels, reach, reach)
        return _as_strip(self.unpadded(self.layer, tiles), batch=len(strip))


def _convolve(layer: nn.Conv2d, tiles: Tensor) -> Tensor:
    return F.conv2d(tiles, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)


def _max_pool(layer: nn.MaxPool2d, tiles: Tensor) -> Tensor:
    return F.max_pool2d(tiles, layer.kernel_size, layer.stride, 0, layer.dilation)


def _avg_pool(layer: nn.AvgPool2d, tiles: Tensor) -> Tensor:
    return F.avg_pool2d(tiles, layer.kernel_size, layer.stride)


# What looks around: how it runs unpadded, and the value that it finds beyond the image.
_WINDOWED: Mapping[type[nn.Module], tuple[Callable[[Any, Tensor], Tensor], float]] = {
    nn.Conv2d: (_convolve, 0.0),
    timm_layers.Conv2dSame: (_convolve, 0.0),
    nn.MaxPool2d: (_max_pool, -torch.inf),
    nn.AvgPool2d: (_avg_pool, 0.0),
}


def _as_strip(tiles: Tensor, *, batch: int) -> Tensor:
    """Tiles `(batch * kept, channels, side, side)` as a strip."""
    _, channels, _, side = tiles.shape
    return tiles.permute(0, 2, 3, 1).reshape(batch, -1, side, channels).permute(0, 3, 1, 2)


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
    facts: Any = backbone.net.feature_info
    maps: Any = end.args[0]
    if len(facts) != len(maps):
        raise _refusal(backbone, f"it gives {len(maps)} feature maps and lists {len(facts)}")
    maps = {int(fact["reduction"]): node for fact, node in zip(facts, maps, strict=True)}
    channels = {int(fact["reduction"]): int(fact["num_chs"]) for fact in facts}
    channels[backbone.stride] = backbone.embed_dim  # after the last convolution, where there is one
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
    if isinstance(layer, nn.Conv2d):
        alone = (layer.kernel_size, layer.stride, layer.padding) == ((1, 1), (1, 1), (0, 0))
        return alone and type(layer) in (nn.Conv2d, timm_layers.Conv2dSame)
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
    return _OnTiles(layer, before=before, after=max(after, 0))


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
