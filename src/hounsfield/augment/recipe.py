"""Int16 images in, normalised views out, made where the images are, a draw per sample."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from hounsfield.augment import ops
from hounsfield.augment.geometry import Geometry
from hounsfield.augment.intensity import Intensity
from hounsfield.units import AIR_HU

MEAN, STD = 0.5, 0.25  # of our recipes' normalisation: pixels lie within -2 and 2


@dataclass(frozen=True)
class View:
    """One view of an image: its size in px, its geometry, its intensities.

    A view without a geometry is the whole image, resized.
    """

    size: int
    geometry: Geometry | None
    intensity: Intensity


@dataclass(frozen=True)
class Recipe:
    """Views of a batch, made where its images are.

    Attributes:
        name: As in `RECIPES`.
        views: What is drawn from every image, in this order.
        channels: The view is repeated over so many channels.
        mean, std: Of the normalisation, one number or one a channel.
        prepare: Makes display values of the whole images first.
    """

    name: str
    views: tuple[View, ...]
    channels: int = 1
    mean: tuple[float, ...] = (MEAN,)
    std: tuple[float, ...] = (STD,)
    prepare: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, images: Tensor, is_hu: Tensor, generator: Generator) -> list[Tensor]:
        """Normalised float32 views, each `(batch, channels, size, size)`.

        Args:
            images: int16 `(batch, 1, height, width)`, HU or display values.
            is_hu: bool `(batch,)`, which of the two.
            generator: All the chance. One on the CPU gives the same crops, windows and choices
                on every device, without a wait for the device; the noise is the device's own.
        """
        pixels, kinds = images.to(torch.float32, copy=True), is_hu.to(images.device)
        if self.prepare is not None:
            pixels, kinds = self.prepare(pixels, kinds), torch.zeros_like(kinds)
        # Above air, so that the zeros that sampling finds outside an image are air.
        air = torch.where(kinds, float(AIR_HU), 0.0)[:, None, None, None]
        levels = ops.pyramid(pixels.sub_(air), self._depth(*images.shape[-2:]))
        return [self._view(view, levels, air, kinds, generator) for view in self.views]

    def _view(
        self, view: View, levels: list[Tensor], air: Tensor, is_hu: Tensor, generator: Generator
    ) -> Tensor:
        batch, _, height, width = levels[0].shape
        if view.geometry is None:
            pixels = ops.resize(levels[0], view.size)
        else:
            maps = view.geometry.draw(batch, height, width, generator)
            pixels = ops.resample(levels, maps, size=view.size, mode=view.geometry.mode)
        unit = view.intensity(pixels + air, is_hu, generator, size=view.size)
        mean, std = (_on(unit.device, part)[:, None, None] for part in (self.mean, self.std))
        pixels = ((unit - mean) / std).permute(0, 2, 3, 1).flatten(1)
        # Channels last: of a single one only the strides can say so, and convolutions go by them.
        last = pixels.view(batch, view.size, view.size, -1).permute(0, 3, 1, 2)
        return last.expand(-1, self.channels, -1, -1)

    def _depth(self, height: int, width: int) -> int:
        """How many octaves the coarsest view may need: the whole image, seen without stretch."""
        coarsest = max(
            (math.sqrt(height * width) / view.size for view in self.views if view.geometry),
            default=1.0,
        )
        return max(0, round(math.log2(coarsest)))


def _on(device: torch.device, numbers: tuple[float, ...]) -> Tensor:
    """The numbers on the device; nobody waits for it."""
    return torch.tensor(numbers).to(device, non_blocking=True)
