"""The recipes by name, ours and the published study's."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hounsfield.augment import published
from hounsfield.augment.geometry import Geometry
from hounsfield.augment.intensity import Jitter, Windowed
from hounsfield.augment.recipe import Recipe, View
from hounsfield.errors import ConfigError, one_of
from hounsfield.units import DISPLAY_MAX, WIDE_HU


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


def plain_view(
    images: Tensor, is_hu: Tensor, *, size: int, channels: int, window: tuple[float, float]
) -> Tensor:
    """Whole images as evaluation sees them: normalised `(batch, channels, size, size)`.

    Args:
        images: int16 `(batch, 1, height, width)`, HU or display values.
        is_hu: bool `(batch,)`, which of the two.
        size: Of the view, in px.
        channels: The view is repeated over so many channels.
        window: In HU.
    """
    plain = recipe("plain", size=size, channels=channels, window=window)
    return plain(images, is_hu, torch.Generator())[0]  # it draws nothing


# Ours. A window shifted by 0.15 widths and stretched 0.4 to 1.2 times: from the wide window
# (-1000 to 1000 HU) that reaches from lungs to bones, and inside the brain's 80 HU it stays there.
_STRONG_HU = Jitter(shift=0.15, stretch=(0.4, 1.2), noise=20.0)
_STRONG_DISPLAY = Jitter(shift=0.1, stretch=(0.6, 1.2), noise=0.02 * DISPLAY_MAX)
_LIGHT_HU = Jitter(shift=0.05, stretch=(0.9, 1.1))
_LIGHT_DISPLAY = Jitter(shift=0.03, stretch=(0.95, 1.05))


def _strong(window: tuple[float, float], *, blur_share: float = 0.5) -> Windowed:
    return Windowed(
        window_hu=window,
        hu=_STRONG_HU,
        display=_STRONG_DISPLAY,
        noise_share=0.5,
        blur_px=2.0,
        blur_share=blur_share,
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
    """MoCo v2's: two of a kind."""
    view = View(size, _crop(0.2, 1.0), _strong(window))
    return Recipe(name, (view, view), channels)


def _uneven_views(name: str, size: int, channels: int, window: tuple[float, float]) -> Recipe:
    """BYOL's, with its paper's areas and blur: one view always blurred, the other rarely.

    The paper also inverts the bright pixels of some of the second views. In CT that would turn
    bone into air, so it is left out.
    """
    always, rarely = (_strong(window, blur_share=share) for share in (1.0, 0.1))
    views = tuple(View(size, _crop(0.08, 1.0), how) for how in (always, rarely))
    return Recipe(name, views, channels)


def _multi_crop(name: str, size: int, channels: int, window: tuple[float, float]) -> Recipe:
    """SwAV's: two large views and six small ones, with its paper's areas."""
    large = View(size, _crop(0.14, 1.0), _strong(window))
    small = View(small_size(size), _crop(0.05, 0.14), _strong(window))
    return Recipe(name, (large,) * 2 + (small,) * 6, channels)


def _supervised(name: str, size: int, channels: int, window: tuple[float, float]) -> Recipe:
    """Fine-tuning's: a little of everything, for labels that a mirror does not change."""
    return _light(name, size, channels, window, mirror_x=0.5)


def _supervised_sided(name: str, size: int, channels: int, window: tuple[float, float]) -> Recipe:
    """Fine-tuning's where labels tell left from right: never mirrored."""
    return _light(name, size, channels, window, mirror_x=0.0)


def _light(
    name: str, size: int, channels: int, window: tuple[float, float], *, mirror_x: float
) -> Recipe:
    geometry = Geometry(scale=(0.8, 1.0), ratio=(0.95, 1.05), degrees=10.0, mirror_x=mirror_x)
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
    "uneven_views": _uneven_views,
    "multi_crop": _multi_crop,
    "supervised": _supervised,
    "supervised_sided": _supervised_sided,
    "plain": _plain,
    "paper_single": lambda name, size, channels, _: published.single(name, size, channels),
    "paper_two_views": lambda name, size, channels, _: published.two_views(name, size, channels),
    "paper_multi_crop": lambda name, size, channels, _: published.multi_crop(
        name, size, channels, small_size(size)
    ),
}
