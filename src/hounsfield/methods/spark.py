"""SparK: hide 60 % of the image from a convolutional network, and let a decoder draw it.

Tian et al. 2023, "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked
Modeling", arXiv 2301.03580; original code
https://github.com/keyu-tian/SparK/blob/a63e386f8e5186bc07ad7fce86e06b08f48a61ea/pretrain/spark.py
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from timm.layers import LayerNorm2d
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from hounsfield.config import Config
from hounsfield.errors import ConfigError
from hounsfield.losses.masked_mse import (
    SMALLEST_VARIANCE,
    content,
    masked_mse,
    patch_statistics,
    patchify,
    unpatchify,
)
from hounsfield.methods.base import Method, Plateau, Step, expect
from hounsfield.models.backbone import Backbone
from hounsfield.models.decoder import Decoder
from hounsfield.models.gather import gather
from hounsfield.models.layout import Layout
from hounsfield.models.tiles import TileEncoder


class SparKConfig(Config):
    """SparK's settings.

    Attributes:
        mask_ratio: Share of the patches that are hidden.
        decoder_width: Channels of the decoder's first map.
        decoder_stride: Where the decoder's blocks end and a pixel shuffle draws.
        empty_std: A patch that spreads by this much (in units of the normalised view) counts half
            in the loss, an emptier one less; 0 counts all alike, as in the paper.
    """

    mask_ratio: float = Field(default=0.6, gt=0.0, lt=1.0)
    # Unlike the paper: it has 768 and 1, and spends most of a step in what is thrown away. At equal
    # time this decoder reached the lowest loss of those tried (`benchmarks/decoder.py`).
    decoder_width: int = Field(default=128, ge=1)
    decoder_stride: int = Field(default=4, ge=1)
    empty_std: float = Field(default=0.05, ge=0.0)


class SparK(Method):
    """Masked image modelling for convolutional networks."""

    name: ClassVar[str] = "spark"
    config_class: ClassVar[type[Config]] = SparKConfig
    recipe: ClassVar[str] = "single"

    def __init__(
        self, backbone: Backbone, config: SparKConfig, *, image_size: int, corpus_size: int
    ) -> None:
        """Put a decoder on the backbone.

        Raises:
            ConfigError: The image is not a whole number of patches, the mask leaves nothing
                visible or nothing hidden, or the backbone cannot be run on visible patches only.
        """
        del corpus_size
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.encoder = TileEncoder(backbone)  # owns nothing: all that it runs is the backbone's
        for parameter in self.encoder.unused:
            parameter.requires_grad_(False)
        _kept(config, _grid(image_size, image_size, backbone.stride))
        self.decoder = Decoder(
            config.decoder_width,
            channels=backbone.channels,
            first_stride=backbone.stride,
            last_stride=config.decoder_stride,
        )
        self.densify = nn.ModuleDict(  # by stride, the smallest map first
            {
                str(stride): Densify(backbone, stride, channels, self.decoder.widths[stride])
                for stride, channels in reversed(self.encoder.channels.items())
                if stride in self.decoder.widths
            }
        )

    def plateau(self) -> Plateau:
        """Where every patch is drawn as its own mean."""
        return Plateau(
            loss=1.0,
            within=0.005,
            name="a patch's variance",
            meaning="every hidden patch is drawn as one even grey",
            cause="the learning rate is too low, or the window shows little but noise",
            change="Raise optim.lr, lower spark.mask_ratio, or widen the window.",
        )

    def forward(self, views: Sequence[Tensor]) -> Step:
        """The error of what is drawn where the image was hidden."""
        (images,) = expect(views, 1, method=self.name)
        return self.step(images, self.draw_layout(images))

    def draw_layout(self, images: Tensor) -> Layout:
        """A mask for each of the images; patches are hidden at random."""
        grid = _grid(images.shape[2], images.shape[3], self.backbone.stride)
        kept = _kept(self.config, grid)
        order = torch.rand(len(images), grid[0] * grid[1], device=images.device).argsort(dim=1)
        return Layout(order[:, :kept].sort(dim=1).values, grid=grid)

    def step(self, images: Tensor, layout: Layout) -> Step:
        """As `forward`, with a mask that is given."""
        target = patchify(images, self.backbone.stride)
        drawn = patchify(self.draw(images, layout), self.backbone.stride).to(target.dtype)
        hidden = layout.hidden.to(target.dtype)
        weights = hidden * content(target, empty_std=self.config.empty_std)
        error, weight = masked_mse(drawn, target, weights)
        # All processes divide by the weight of the joint batch; their losses' mean is its loss.
        mean_weight = gather(weight[None]).mean().clamp(min=SMALLEST_VARIANCE)  # 0 where all is air
        return Step(error / mean_weight, {"content": weight / hidden.sum()})

    def draw(self, images: Tensor, layout: Layout) -> Tensor:
        """What the decoder draws, `(batch, channels, height, width)`, in each patch's own units."""
        strips = self.encoder(layout.pack(images), layout)
        return self.decoder(
            {int(s): densify(strips[int(s)], layout) for s, densify in self.densify.items()}
        )

    @torch.no_grad()
    def reconstruct(self, images: Tensor, layout: Layout) -> Tensor:
        """The images with their hidden patches drawn, `(batch, channels, height, width)`.

        A patch's mean and spread are the true ones: the method does not predict them.
        """
        side, (height, width) = self.backbone.stride, images.shape[2:]
        target = patchify(images, side)
        mean, variance = patch_statistics(target)
        drawn = patchify(self.draw(images, layout), side) * (variance + SMALLEST_VARIANCE).sqrt()
        return unpatchify(
            torch.where(layout.hidden[..., None], drawn + mean, target),
            side,
            height=height,
            width=width,
        )


class Densify(nn.Module):
    """From a strip to a whole map for the decoder, a learnt token where the image was hidden."""

    def __init__(self, backbone: Backbone, stride: int, channels: int, width: int) -> None:
        super().__init__()
        norm = LayerNorm2d if isinstance(backbone.net, ConvNeXt) else nn.BatchNorm2d
        self.norm = norm(channels)
        self.token = nn.Parameter(nn.init.trunc_normal_(torch.empty(channels), std=0.02))
        kernel = 1 if stride == backbone.stride else 3
        self.proj = nn.Conv2d(channels, width, kernel_size=kernel, padding=kernel // 2)

    def forward(self, strip: Tensor, layout: Layout) -> Tensor:
        """The map, `(batch, width, rows, columns)`."""
        return self.proj(layout.unpack(self.norm(strip), self.token))


def _grid(height: int, width: int, patch: int) -> tuple[int, int]:
    if height % patch or width % patch:
        raise ConfigError(
            f"SparK hides whole patches of {patch} pixels, the backbone's stride; an image of "
            f"{height} x {width} is not made of them. Take a multiple of {patch}."
        )
    return height // patch, width // patch


def _kept(config: SparKConfig, grid: tuple[int, int]) -> int:
    """How many patches stay visible."""
    patches = grid[0] * grid[1]
    kept = round(patches * (1.0 - config.mask_ratio))
    if not 0 < kept < patches:
        raise ConfigError(
            f"mask_ratio = {config.mask_ratio} keeps {kept} of an image's {patches} patches; at "
            "least one must be visible and one hidden. Take larger images or another ratio."
        )
    return kept
