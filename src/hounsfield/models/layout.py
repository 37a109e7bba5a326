"""Visible patches packed without holes, and where each finds its neighbours.

Every image of a batch keeps the same number of patches, so their pieces of a feature map, the
tiles, pack into one dense tensor: a strip `(batch, channels, kept * side, side)`, an image's tiles
one above the other, channels last in memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reach:
    """How a layer looks around: at `kernel` pixels, `dilation` apart, from every `stride`-th pixel.

    Attributes:
        kernel: Pixels seen along a side.
        stride: Pixels from one place to the next.
        dilation: Pixels from one seen pixel to the next.
        before: Pixels seen above a tile and to its left.
        after: Pixels seen below a tile and to its right.
    """

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def span(self) -> int:
        """Pixels from the first seen to the last."""
        return self.dilation * (self.kernel - 1) + 1


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
        self._known: dict[tuple[int, int, int], Tensor] = {}

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
        whole = patches.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        return whole.reshape(batch, rows * side, columns * side, channels).permute(0, 3, 1, 2)

    def halo(self, strip: Tensor, reach: Reach, *, outside: float = 0.0) -> Tensor:
        """Tiles with what a layer sees around them, `(batch * kept, channels, wide, wide)`.

        Args:
            strip: `(batch, channels, kept * side, side)`.
            reach: How the layer looks around; `wide = before + side + after`.
            outside: The value beyond the image; that of a hidden pixel is 0.
        """
        side, channels = strip.shape[3], strip.shape[1]
        wide = reach.before + side + reach.after
        rows = strip.permute(0, 2, 3, 1).reshape(-1, channels)
        if wide > side:
            rows = self._with_ends(rows, outside)
            rows = rows.index_select(0, self._sources(side, reach).flatten())
        return rows.view(-1, wide, wide, channels).permute(0, 3, 1, 2)

    def columns(self, strip: Tensor, reach: Reach) -> Tensor:
        """All that a layer sees from each place, `(places, kernel * kernel * channels)`.

        The places run as the pixels of the strip that the layer gives; beyond the image is 0.
        """
        side, channels = strip.shape[3], strip.shape[1]
        sources = self._sources(side, reach)
        for axis in (1, 2):
            sources = sources.unfold(axis, reach.span, reach.stride)
        seen = sources[..., :: reach.dilation, :: reach.dilation]  # (tiles, out, out, k, k)
        rows = self._with_ends(strip.permute(0, 2, 3, 1).reshape(-1, channels), 0.0)
        return rows.index_select(0, seen.flatten()).view(-1, reach.kernel**2 * channels)

    def _sources(self, side: int, reach: Reach) -> Tensor:
        """For every pixel of every tile with its halo, the packed pixel that it shows.

        Computed once a batch for all layers that look equally far, `(batch * kept, wide, wide)`.
        The numbers beyond the last pixel stand for a hidden pixel, one an image, and for one
        outside, one an image: on a GPU what is added to a single row, as a gradient, waits in line.
        """
        key = (side, reach.before, reach.after)
        if key not in self._known:
            self._known[key] = self._find_sources(*key)
        return self._known[key]

    def _find_sources(self, side: int, before: int, after: int) -> Tensor:
        (rows, columns), batch = self.grid, len(self.visible)
        pixels = self.visible.numel() * side**2
        steps = torch.arange(-before, side + after, device=self.visible.device)
        patch_steps = steps.div(side, rounding_mode="floor")
        row = (self.visible // columns)[..., None, None] + patch_steps[:, None]
        column = (self.visible % columns)[..., None, None] + patch_steps
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        patch = row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)
        slot = self.slots.gather(1, patch.flatten(1)).view_as(patch)  # (batch, kept, wide, wide)
        within = steps - patch_steps * side
        pixel = slot * side**2 + within[:, None] * side + within
        hidden = pixels + torch.arange(batch, device=pixel.device)[:, None, None, None]
        return pixel.where(slot >= 0, hidden).where(inside, hidden + batch).flatten(0, 1)

    def _with_ends(self, rows: Tensor, outside: float) -> Tensor:
        """Pixels `(pixels, channels)`, then hidden ones, then ones outside: see `_sources`."""
        shape = (len(self.visible), rows.shape[1])
        return torch.cat([rows, rows.new_zeros(shape), rows.new_full(shape, outside)])

    def _places(self) -> Tensor:
        """Of every tile, its patch's number within the batch, `(batch * kept,)`."""
        first = torch.arange(len(self.visible), device=self.visible.device) * self.slots.shape[1]
        return (self.visible + first[:, None]).flatten()


def as_strip(tiles: Tensor, *, batch: int) -> Tensor:
    """Tiles `(batch * kept, channels, side, side)` as a strip."""
    _, channels, _, side = tiles.shape
    return tiles.permute(0, 2, 3, 1).reshape(batch, -1, side, channels).permute(0, 3, 1, 2)
