"""From resampled pixels in their own unit to [0, 1]: blur, noise, a window, gamma.

The order is that of the physics: pixels are blurred and made noisier in HU, where averages mean
something, and only then put through a window, which clips. A random window is what colour jitter is
elsewhere. Display values have been windowed by somebody before us, so theirs varies less, and their
noise is a share of the display range.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from hounsfield.augment import ops
from hounsfield.units import DISPLAY_MAX, WIDE_HU


class Intensity(Protocol):
    """From resampled pixels in their own unit to [0, 1]."""

    def __call__(self, pixels: Tensor, is_hu: Tensor, generator: Generator, *, size: int) -> Tensor:
        """[0, 1] of `pixels` `(batch, 1, size, size)`."""


@dataclass(frozen=True)
class Jitter:
    """How the intensities of one kind of pixels vary.

    Attributes:
        shift: The window's centre moves by up to this many widths, either way.
        stretch: Least and greatest factor of the window's width.
        noise: Greatest standard deviation of the noise, in the pixels' own unit.
    """

    shift: float = 0.0
    stretch: tuple[float, float] = (1.0, 1.0)
    noise: float = 0.0


@dataclass(frozen=True)
class Windowed:
    """Blur and noise in the pixels' own unit, a random window, gamma.

    Attributes:
        window_hu: The window that is varied for HU; for display values it is their whole range.
        hu: How HU vary.
        display: How display values vary.
        noise_share: Share of the views with noise.
        blur_px: Greatest standard deviation of the blur in a view of 224 px; the least is 0.1.
        blur_share: Share of the views that are blurred.
        gamma: The exponent lies between 1 / gamma and gamma, uniform in its logarithm.
        gamma_share: Share of the views with a gamma.
    """

    window_hu: tuple[float, float] = WIDE_HU
    hu: Jitter = Jitter()
    display: Jitter = Jitter()
    noise_share: float = 0.0
    blur_px: float = 0.0
    blur_share: float = 0.0
    gamma: float = 1.0
    gamma_share: float = 0.0

    def __call__(self, pixels: Tensor, is_hu: Tensor, generator: Generator, *, size: int) -> Tensor:
        """[0, 1] of `pixels` `(batch, 1, size, size)`; `is_hu` is where they are."""
        batch = len(pixels)
        if self.blur_share:
            blurred = ops.coin(batch, self.blur_share, generator)
            sigma_px = ops.uniform(batch, 0.1, self.blur_px, generator) * size / 224
            pixels = some(pixels, blurred, ops.blur, sigma_px)
        if self.noise_share:
            share = ops.uniform(batch, 0, 1, generator)
            share = share * ops.coin(batch, self.noise_share, generator)
            most = torch.where(is_hu, self.hu.noise, self.display.noise)
            noise = ops.sample_noise(pixels, generator)
            deviation = share.to(pixels.device, non_blocking=True) * most
            pixels = ops.add_noise(pixels, noise, deviation)
        views = ops.window(pixels, *self.draw_window(is_hu, generator))
        if self.gamma_share:
            changed = ops.coin(batch, self.gamma_share, generator)
            exponent = ops.log_uniform(batch, 1 / self.gamma, self.gamma, generator)
            views = some(views, changed, ops.gamma, exponent)
        return views

    def draw_window(self, is_hu: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Lower and upper ends, each `(batch,)`, in each sample's own unit, where `is_hu` is."""
        low = torch.where(is_hu, self.window_hu[0], 0.0)
        high = torch.where(is_hu, self.window_hu[1], float(DISPLAY_MAX))
        shift = torch.where(is_hu, self.hu.shift, self.display.shift)
        ends = zip(self.hu.stretch, self.display.stretch, strict=True)
        stretch = torch.stack([torch.where(is_hu, hu, display) for hu, display in ends], dim=1)
        return ops.sample_window(low, high, shift=shift, stretch=stretch, generator=generator)


def some(
    images: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor], parameter: Tensor
) -> Tensor:
    """Images with `change` applied where `chosen`, and only there is it computed."""
    rows = chosen.nonzero()[:, 0]
    parameter = parameter[rows].to(images.device, non_blocking=True)
    rows = rows.to(images.device, non_blocking=True)
    return images.index_copy(0, rows, change(images[rows], parameter))
