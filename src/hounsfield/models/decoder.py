"""SparK's decoder: from the smallest map upwards, each map added where its size is reached.

Tian et al. 2023, arXiv 2301.03580, section 3.2; original code
https://github.com/keyu-tian/SparK/blob/a63e386f8e5186bc07ad7fce86e06b08f48a61ea/pretrain/decoder.py
"""

from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor, nn

from hounsfield.errors import ConfigError


class Block(nn.Module):
    """Twice the size, then two convolutions; `(batch, wide, h, w)` to `(batch, narrow, 2h, 2w)`."""

    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(wide, wide, kernel_size=4, stride=2, padding=1)
        self.conv1 = nn.Conv2d(wide, wide, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.act = nn.ReLU6()
        self.conv2 = nn.Conv2d(wide, narrow, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(narrow)

    def forward(self, maps: Tensor) -> Tensor:
        """The map at twice the size."""
        maps = self.act(self.norm1(self.conv1(self.up(maps))))
        return self.norm2(self.conv2(maps))


class Decoder(nn.Module):
    """Draws images from feature maps of several strides.

    Attributes:
        widths: Channels by stride, from the encoder's down to `last_stride`.
    """

    def __init__(self, width: int, *, channels: int, first_stride: int, last_stride: int) -> None:
        """Blocks from `first_stride` to `last_stride`, the channels halved by each.

        Args:
            width: Channels at `first_stride`.
            channels: Of the image to draw.
            first_stride: Stride of the smallest map, a power of two.
            last_stride: Where the blocks end; a pixel shuffle does the rest. The paper's is 1.

        Raises:
            ConfigError: `width` cannot be halved that often, or the strides do not fit.
        """
        super().__init__()
        strides = _halvings(first_stride, last_stride)
        if width % 2 ** (len(strides) - 1):
            raise ConfigError(
                f"decoder width {width} cannot be halved {len(strides) - 1} times, from stride "
                f"{first_stride} to {last_stride}. Take a multiple of {2 ** (len(strides) - 1)}."
            )
        self.widths = {stride: width >> step for step, stride in enumerate(strides)}
        widths = list(self.widths.values())
        self.blocks = nn.ModuleList(Block(wide, narrow) for wide, narrow in pairwise(widths))
        self.proj = nn.Conv2d(widths[-1], channels * last_stride**2, kernel_size=1)
        self.shuffle = nn.PixelShuffle(last_stride)

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Images `(batch, channels, height, width)`.

        Args:
            maps: By stride, `(batch, widths[stride], height / stride, width / stride)`; that of
                the first stride must be there, and none smaller than the last stride.
        """
        strides = list(self.widths)
        drawn = maps[strides[0]]
        for stride, block in zip(strides[1:], self.blocks, strict=True):
            drawn = block(drawn)
            if stride in maps:
                drawn = drawn + maps[stride]
        return self.shuffle(self.proj(drawn))


def _halvings(first: int, last: int) -> list[int]:
    """`first`, its half, ... `last`."""
    strides = [first]
    while strides[-1] % 2 == 0:
        strides.append(strides[-1] // 2)
    if last not in strides:
        allowed = ", ".join(map(str, strides))
        raise ConfigError(f"a decoder cannot end at stride {last}. Allowed: {allowed}.")
    return strides[: strides.index(last) + 1]
