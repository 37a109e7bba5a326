"""The encoder on visible tiles against the dense one with its hidden pixels put to zero."""

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hounsfield.errors import ConfigError
from hounsfield.models import tiles
from hounsfield.models.backbone import Backbone, create
from hounsfield.models.layout import Layout, Reach
from hounsfield.models.tiles import TileEncoder
from reference.masked_dense import Mask, masked_maps

BACKBONES = (
    "resnet10_tiny",
    "resnet10_half",
    "resnet18",  # plain blocks
    "resnet26",  # bottlenecks
    "resnet50",
    "resnet26d",  # three convolutions for a stem, average pools
    "resnetv2_50",  # a max pool that sees negative values
    "resnet50_gn",  # group norm
    "seresnext26d_32x4d",  # squeeze and excitation, grouped convolutions
    "convnext_atto",  # 7 x 7 where a tile is one pixel; layer norm
    "convnext_tiny",  # linear layers on channels last
    "convnextv2_atto",  # global response norm
    "regnetx_002",
    "regnety_002",
    "mobilenetv3_small_100",
    "mnasnet_small",
    "efficientnet_b0",
    "tf_efficientnet_b0",  # TensorFlow's one-sided padding
    "mobilenetv2_100",
)
# In the last three, rounding to 32 bits alone makes about 1e-5 of the gradient; the others left
# out here are only slow.
STEADY = set(BACKBONES[:-3]) - {"resnet50", "resnet50_gn", "resnetv2_50", "convnext_tiny"}
GRID = (3, 3)
BATCH, KEPT = 3, 5


@pytest.fixture
def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def lively(backbone: Backbone, chance: torch.Generator) -> Backbone:
    """With no weight at a value, such as zero, that would hide a mistake."""
    with torch.no_grad():
        for parameter in backbone.net.parameters():
            if parameter.ndim > 1:
                scale = (2 / parameter[0].numel()) ** 0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=chance))
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=chance))
    return backbone


def draw_layout(chance: torch.Generator, *, kept: int = KEPT) -> Layout:
    order = torch.rand(BATCH, GRID[0] * GRID[1], generator=chance).argsort(dim=1)
    return Layout(order[:, :kept].sort(dim=1).values, grid=GRID)


def mask_of(layout: Layout) -> Mask:
    return Mask(~layout.hidden.view(-1, 1, *layout.grid))


def sparse_maps(backbone: Backbone, images: Tensor, layout: Layout) -> list[Tensor]:
    """By tiles, put back into whole maps with zeros where hidden."""
    strips = TileEncoder(backbone)(layout.pack(images), layout)
    return [layout.unpack(each, each.new_zeros(each.shape[1])) for each in strips.values()]


def dense_maps(backbone: Backbone, images: Tensor, layout: Layout) -> list[Tensor]:
    return [*masked_maps(backbone.net, images, mask_of(layout)).values()]


@dataclass(frozen=True)
class Passed:
    """What a pass forward and back leaves."""

    maps: list[Tensor]
    statistics: list[Tensor]
    gradients: dict[str, Tensor]


def passed(maps: list[Tensor], asked: list[Tensor], net: nn.Module) -> Passed:
    torch.autograd.backward(maps, asked)
    gradients = {name: each.grad for name, each in net.named_parameters() if each.grad is not None}
    statistics = [buffer for name, buffer in net.named_buffers() if "running" in name]
    return Passed(maps, statistics, gradients)


def both_ways(
    name: str, chance: torch.Generator, precision: torch.dtype, *, smooth: bool = False
) -> tuple[Passed, Passed]:
    """On tiles, and dense with a mask; the same weights, images and gradient asked for."""
    images = torch.randn(BATCH, 1, 96, 96, generator=chance).to(precision)
    layout = draw_layout(chance)
    tiled = lively(create(name), chance).to(precision)
    if smooth:
        smoothen(tiled.net)
    dense = deepcopy(tiled)
    ours, truth = sparse_maps(tiled, images, layout), dense_maps(dense, images, layout)
    asked = [torch.randn(each.shape, generator=chance).to(precision) for each in truth]
    return passed(ours, asked, tiled.net), passed(truth, asked, dense.net)


def smoothen(net: nn.Module) -> None:
    """Without kinks, where rounding alone turns a gradient on or off."""
    for name, child in net.named_children():
        if isinstance(child, nn.ReLU | nn.ReLU6 | nn.Hardswish):
            setattr(net, name, nn.SiLU())
        elif isinstance(child, nn.Hardsigmoid):
            setattr(net, name, nn.Sigmoid())
        smoothen(child)


def off(ours: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Length of the difference, in units of the truth's length."""
    joint, true = (torch.cat([each.detach().flatten() for each in all_]) for all_ in (ours, truth))
    return ((joint - true).norm() / true.norm()).item()


@pytest.mark.parametrize("name", BACKBONES)
def test_tiles_give_the_masked_dense_networks_maps_gradients_and_statistics(
    name: str, chance: torch.Generator
) -> None:
    ours, truth = both_ways(name, chance, torch.float64)

    assert len(ours.maps) == 4
    for mine, true in zip(ours.maps, truth.maps, strict=True):
        assert off([mine], [true]) < 1e-10
    for mine, true in zip(ours.statistics, truth.statistics, strict=True):
        assert off([mine], [true]) < 1e-10
    assert ours.gradients.keys() == truth.gradients.keys()
    for parameter, true in truth.gradients.items():  # some vanish, so small ones count absolutely
        assert (ours.gradients[parameter] - true).norm() < 1e-10 * max(1, true.norm()), parameter


@pytest.mark.parametrize("name", sorted(STEADY))
def test_tiles_are_as_exact_as_32_bits_allow(name: str, chance: torch.Generator) -> None:
    ours, truth = both_ways(name, chance, torch.float32, smooth=True)

    for mine, true in zip(ours.maps, truth.maps, strict=True):
        assert off([mine], [true]) < 1e-5
    if truth.statistics:
        assert off(ours.statistics, truth.statistics) < 1e-5
    assert off([*ours.gradients.values()], [*truth.gradients.values()]) < 1e-5


def test_hidden_pixels_change_nothing(chance: torch.Generator) -> None:
    images = torch.randn(BATCH, 1, 96, 96, generator=chance)
    layout = draw_layout(chance)
    hidden = ~mask_of(layout).at(96)[0].bool()
    backbone = create("resnet10_tiny")

    before = sparse_maps(backbone, images, layout)
    after = sparse_maps(backbone, images.masked_fill(hidden, 1e6), layout)

    assert all(map(torch.equal, before, after))


@pytest.mark.parametrize("name", ["resnet10_tiny", "convnext_atto", "regnety_002"])
def test_with_everything_visible_tiles_are_the_plain_network(
    name: str, chance: torch.Generator
) -> None:
    images = torch.randn(BATCH, 1, 96, 96, generator=chance, dtype=torch.float64)
    backbone = lively(create(name), chance).double()
    plain = deepcopy(backbone)

    ours = sparse_maps(backbone, images, draw_layout(chance, kept=9))[-1]
    truth = plain.net.forward_features(images)

    assert off([ours], [truth]) < 1e-10


def test_stochastic_depth_drops_an_images_tiles_together(chance: torch.Generator) -> None:
    images = torch.randn(BATCH, 1, 96, 96, generator=chance, dtype=torch.float64)
    layout = draw_layout(chance)
    backbone = lively(create("resnet18", drop_path=0.5), chance).double()

    torch.manual_seed(7)
    ours = sparse_maps(backbone, images, layout)
    torch.manual_seed(7)
    truth = dense_maps(backbone, images, layout)

    assert off(ours, truth) < 1e-10


def test_an_exchanged_layer_is_found(chance: torch.Generator) -> None:
    images = torch.randn(BATCH, 1, 96, 96, generator=chance)
    layout = draw_layout(chance)
    backbone = create("resnet10_tiny")
    encoder = TileEncoder(backbone)
    backbone.net.bn1 = nn.BatchNorm2d(64)
    nn.init.zeros_(backbone.net.bn1.weight)
    nn.init.ones_(backbone.net.bn1.bias)

    largest = encoder(layout.pack(images), layout)[4]

    # Every pixel of the stem is now 1, so the tiles of all images and places look alike inside.
    inside = layout.halo(largest, Reach(1, 1, 1, before=0, after=0))[:, :, 2:-2, 2:-2]
    assert torch.allclose(inside, inside[:1, :, :1, :1].expand_as(inside), atol=1e-5)


class Added(TorchDispatchMode):
    """Into which rows gradients are added."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "index_add" in str(func):
            self.rows = args[2]
        return func(*args, **(kwargs or {}))


def test_gradients_of_what_is_hidden_do_not_all_wait_for_one_row(chance):
    layout, reach = draw_layout(chance), Reach(3, 1, 1, before=1, after=1)
    strip = torch.randn(BATCH, 8, KEPT, 1, generator=chance, requires_grad=True)
    with Added() as added:
        layout.halo(strip, reach).sum().backward()
    assert len(added.rows) == BATCH * KEPT * 9
    assert added.rows.bincount().max() <= KEPT * 9  # what a single image shows


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("resnetblur18", "net.maxpool.1 .BlurPool2d"),  # pads by reflection
        ("res2net50_26w_4s", "split in net.layer1.0 .Bottle2neck"),
        ("edgenext_xx_small", "chunk in net.stages.1.blocks.1 .SplitTransposeBlock"),
        ("vit_tiny_patch16_224", "flatten in net.patch_embed"),
    ],
)
def test_what_cannot_be_exact_is_refused_by_name(name: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*visible patches only: {what}"):
        TileEncoder(create(name))


def test_a_map_that_was_written_into_gives_no_gradient(chance):
    layout = draw_layout(chance)
    strip = layout.pack(torch.randn(BATCH, 1, 96, 96, generator=chance))
    maps = tiles._on_tiles(nn.Conv2d(1, 4, 3, padding=1))(strip, layout)
    strip.add_(1)
    with pytest.raises(RuntimeError, match="was written into"):
        maps.sum().backward()


@pytest.mark.parametrize("name", ["resnet10_tiny", "convnext_atto"])
def test_the_encoder_compiles_to_one_graph_without_a_question_to_the_device(name, chance):
    encoder, layout = TileEncoder(create(name)), draw_layout(chance)
    images = torch.randn(BATCH, 1, 96, 96, generator=chance)
    graphs = []

    def keep(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    def maps(images: Tensor) -> list[Tensor]:
        fresh = Layout(layout.visible, grid=GRID)  # its rows are computed in the graph too
        return [*encoder(fresh.pack(images), fresh).values()]

    compiled = torch.compile(maps, fullgraph=True, backend=keep)(images)
    assert all(torch.equal(one, two) for one, two in zip(compiled, maps(images), strict=True))
    (graph,) = graphs
    called = " ".join(str(node.target) for node in graph.graph.nodes)
    assert "index_select" in called or "getitem" in called
    assert not re.search(r"\b(nonzero|item|tolist|cpu)\b", called)
