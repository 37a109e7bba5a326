"""The recipes by name: int16 images in, normalised views out, a draw per sample.

What happens to a pixel follows the physics: it is resampled, blurred and made noisier in HU, where
averages mean something, and only then put through a window, which clips. A random window is what
colour jitter is elsewhere. Display values have been windowed by somebody before us, so theirs is
milder and their noise is in shares of the display range.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from hounsfield.augment import ops
from hounsfield.errors import ConfigError, one_of
from hounsfield.units import AIR_HU, DISPLAY_MAX

WIDE_HU = (-1000.0, 1000.0)


@dataclass(frozen=True)
class Geometry:
    """How a view lies in its image.

    Attributes:
        scale: Least and greatest share of the image's area.
        ratio: Least and greatest width / height.
        degrees: The view is turned by up to this much, either way.
        turn_share: Share of the views that are turned.
        mirror_x: Share of the views mirrored left to right.
        mirror_y: Share of the views mirrored top to bottom.
        turn_first: Turn about the image's centre and then crop, rather than about the crop's own.
        mode: `"bilinear"` or `"bicubic"`.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    degrees: float = 0.0
    turn_share: float = 1.0
    mirror_x: float = 0.0
    mirror_y: float = 0.0
    turn_first: bool = False
    mode: str = "bilinear"

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Tensor:
        """Affine maps `(batch, 2, 3)` for a batch of images; see `ops.view_map`."""
        box = ops.sample_box(
            batch, height, width, scale=self.scale, ratio=self.ratio, generator=generator
        )
        limit = math.radians(self.degrees)
        turned = ops.coin(batch, self.turn_share, generator)
        angle = ops.uniform(batch, -limit, limit, generator) * turned
        mirrored = torch.stack(
            [ops.coin(batch, share, generator) for share in (self.mirror_x, self.mirror_y)], dim=1
        )
        middle = box.new_tensor([width / 2, height / 2]).expand(batch, 2)
        return ops.view_map(
            box,
            angle=angle,
            mirror=1 - 2 * mirrored.float(),
            pivot=middle if self.turn_first else box[:, :2],
        )


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
        """[0, 1] of `pixels` `(batch, 1, size, size)`; `is_hu` is on the generator's device."""
        batch, device = len(pixels), pixels.device
        if self.blur_share:
            blurred = ops.coin(batch, self.blur_share, generator)
            sigma_px = ops.uniform(batch, 0.1, self.blur_px, generator) * size / 224
            pixels = _some(pixels, blurred, ops.blur, sigma_px)
        if self.noise_share:
            most = torch.where(is_hu, self.hu.noise, self.display.noise)
            deviation = ops.uniform(batch, 0, 1, generator) * most
            deviation = deviation * ops.coin(batch, self.noise_share, generator)
            noise = ops.sample_noise(pixels, generator)
            pixels = ops.add_noise(pixels, noise, deviation.to(device, non_blocking=True))
        low, high = self.draw_window(is_hu, generator)
        views = ops.window(pixels, low.to(device), high.to(device))
        if self.gamma_share:
            changed = ops.coin(batch, self.gamma_share, generator)
            exponent = ops.log_uniform(batch, 1 / self.gamma, self.gamma, generator)
            views = _some(views, changed, ops.gamma, exponent)
        return views

    def draw_window(self, is_hu: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Lower and upper ends, each `(batch,)`, in each sample's own unit."""
        low = torch.where(is_hu, self.window_hu[0], 0.0)
        high = torch.where(is_hu, self.window_hu[1], float(DISPLAY_MAX))
        shift = torch.where(is_hu, self.hu.shift, self.display.shift)
        stretch = torch.where(
            is_hu[:, None], low.new_tensor(self.hu.stretch), low.new_tensor(self.display.stretch)
        )
        return ops.sample_window(low, high, shift=shift, stretch=stretch, generator=generator)


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
        prepare: Applied to the whole images first, in their own unit.
    """

    name: str
    views: tuple[View, ...]
    channels: int = 1
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    prepare: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, images: Tensor, is_hu: Tensor, generator: Generator) -> list[Tensor]:
        """Normalised float32 views, each `(batch, channels, size, size)`.

        Args:
            images: int16 `(batch, 1, height, width)`, HU or display values.
            is_hu: bool `(batch,)`, which of the two.
            generator: All the chance. One on the CPU gives the same crops, windows and choices
                on every device, without a wait for the device; the noise is the device's own.
        """
        pixels = images.float()
        kinds = is_hu.to(generator.device)
        if self.prepare is not None:
            pixels = self.prepare(pixels, is_hu.to(images.device))
        levels = ops.pyramid(pixels, self._depth(*images.shape[-2:]))
        return [self._view(view, levels, kinds, generator) for view in self.views]

    def _view(
        self, view: View, levels: list[Tensor], is_hu: Tensor, generator: Generator
    ) -> Tensor:
        batch, _, height, width = levels[0].shape
        if view.geometry is None:
            pixels = ops.resize(levels[0], view.size)
        else:
            maps = view.geometry.draw(batch, height, width, generator)
            air = torch.where(is_hu, float(AIR_HU), 0.0)
            pixels = ops.resample(levels, maps, size=view.size, fill=air, mode=view.geometry.mode)
        unit = view.intensity(pixels, is_hu, generator, size=view.size)
        mean, std = (unit.new_tensor(part)[:, None, None] for part in (self.mean, self.std))
        return ((unit - mean) / std).expand(-1, self.channels, -1, -1)

    def _depth(self, height: int, width: int) -> int:
        """How many octaves the coarsest view may need: the whole image, seen without stretch."""
        coarsest = max(
            (math.sqrt(height * width) / view.size for view in self.views if view.geometry),
            default=1.0,
        )
        return max(0, round(math.log2(coarsest)))


def recipe(
    name: str, *, size: int, channels: int = 1, window: tuple[float, float] = WIDE_HU
) -> Recipe:
    """The recipe of this name.

    Args:
        name: One of `RECIPES`.
        size: Of the (large) views, in px.
        channels: The view is repeated over so many channels.
        window: In HU, the one that is varied, or used as it is. The published recipes have none.

    Raises:
        ConfigError: No recipe has this name, or the size or the window cannot be.
    """
    if name not in RECIPES:
        raise ConfigError(one_of("recipe", name, RECIPES))
    if size < 8 or channels < 1:
        raise ConfigError(
            f"views of {size} px with {channels} channels cannot be made; take at least 8 px "
            "and 1 channel."
        )
    if not window[0] < window[1]:
        raise ConfigError(f"window {window} HU: its lower end must be below its upper end.")
    return RECIPES[name](name, size, channels, window)


def _some(
    images: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor], parameter: Tensor
) -> Tensor:
    """Images with `change` applied where `chosen`, and only there is it computed."""
    rows = chosen.nonzero()[:, 0]
    parameter = parameter[rows].to(images.device, non_blocking=True)
    rows = rows.to(images.device, non_blocking=True)
    return images.index_copy(0, rows, change(images[rows], parameter))


# Ours. A window shifted by 0.15 widths and stretched 0.4 to 1.2 times: from the wide window
# (-1000 to 1000 HU) that reaches from lungs to bones, and inside the brain's 80 HU it stays there.
_STRONG_HU = Jitter(shift=0.15, stretch=(0.4, 1.2), noise=20.0)
_STRONG_DISPLAY = Jitter(shift=0.1, stretch=(0.6, 1.2), noise=0.02 * DISPLAY_MAX)
_LIGHT_HU = Jitter(shift=0.05, stretch=(0.9, 1.1))
_LIGHT_DISPLAY = Jitter(shift=0.03, stretch=(0.95, 1.05))


def _strong(window: tuple[float, float]) -> Windowed:
    return Windowed(
        window_hu=window,
        hu=_STRONG_HU,
        display=_STRONG_DISPLAY,
        noise_share=0.5,
        blur_px=2.0,
        blur_share=0.5,
        gamma=1.5,
        gamma_share=0.5,
    )


def _crop(low: float, high: float) -> Geometry:
    # Axial slices are mirrored left to right only; what lies behind stays behind.
    return Geometry(scale=(low, high), degrees=15.0, mirror_x=0.5)


def _single(name: str, size: int, channels: int, window: tuple[float, float]) -> Recipe:
    """SparK's: crop and mirror, with a mild window; strong colour jitter harms it."""
    geometry = Geometry(scale=(0.67, 1.0), mirror_x=0.5)
    mild = Windowed(window_hu=window, hu=_LIGHT_HU, display=_LIGHT_DISPLAY)
    return Recipe(name, (View(size, geometry, mild),), channels)


def _two_views(name: str, size: int, channels: int, window: tuple[float, float]) -> Recipe:
    """MoCo v2's and BYOL's: two of a kind."""
    view = View(size, _crop(0.2, 1.0), _strong(window))
    return Recipe(name, (view, view), channels)


def _multi_crop(name: str, size: int, channels: int, window: tuple[float, float]) -> Recipe:
    """SwAV's: two large views and six small ones, with its paper's areas."""
    large = View(size, _crop(0.14, 1.0), _strong(window))
    small = View(small_size(size), _crop(0.05, 0.14), _strong(window))
    return Recipe(name, (large,) * 2 + (small,) * 6, channels)


def _supervised(name: str, size: int, channels: int, window: tuple[float, float]) -> Recipe:
    """Fine-tuning's: a little of everything, nothing that changes a diagnosis."""
    geometry = Geometry(scale=(0.8, 1.0), ratio=(0.95, 1.05), degrees=10.0, mirror_x=0.5)
    mild = Windowed(window_hu=window, hu=_LIGHT_HU, display=_LIGHT_DISPLAY)
    return Recipe(name, (View(size, geometry, mild),), channels)


def _plain(name: str, size: int, channels: int, window: tuple[float, float]) -> Recipe:
    """Evaluation's: the whole image through the window; no chance in it."""
    return Recipe(name, (View(size, None, Windowed(window_hu=window)),), channels)


def small_size(size: int) -> int:
    """Side of the small views beside large ones of `size` px: 96 for 224, in steps of 16 px."""
    return min(size, max(32, 16 * round(size * 96 / 224 / 16)))


RECIPES: Mapping[str, Callable[[str, int, int, tuple[float, float]], Recipe]] = {
    "single": _single,
    "two_views": _two_views,
    "multi_crop": _multi_crop,
    "supervised": _supervised,
    "plain": _plain,
}
