"""From stored int16 to [0, 1]: HU through a window, display values by their own scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from hounsfield.errors import ConfigError, one_of
from hounsfield.units import DISPLAY_MAX, WIDE_HU


@dataclass(frozen=True)
class Window:
    """The range of HU that is shown; what is below is 0, what is above is 1.

    Raises:
        ConfigError: The range is empty.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"the window {self.low} to {self.high} HU is empty; give low < high.")


WINDOWS: Final[Mapping[str, Window]] = MappingProxyType(
    {
        "brain": Window(0, 80),
        "soft": Window(-160, 240),
        "lung": Window(-1350, 150),
        "bone": Window(-500, 1300),
        "wide": Window(*WIDE_HU),
    }
)


def window_of(name: str) -> Window:
    """The window called `name`.

    Raises:
        ConfigError: There is no such window.
    """
    if name not in WINDOWS:
        raise ConfigError(one_of("window", name, WINDOWS))
    return WINDOWS[name]


def ends_of(window: str | tuple[float, float]) -> tuple[float, float]:
    """Low and high in HU of a window that is given by its name, or by them.

    Raises:
        ConfigError: There is no such window.
    """
    if not isinstance(window, str):
        return window
    named = window_of(window)
    return named.low, named.high


def to_unit(images: Tensor, is_hu: Tensor, window: Window) -> Tensor:
    """Stored slices in [0, 1].

    Args:
        images: int16 `(batch, 1, height, width)`, as the store has them.
        is_hu: bool `(batch,)`; rows that are not in HU hold display values, which are divided by
            `DISPLAY_MAX` and never windowed.
        window: The range of HU that becomes [0, 1].

    Returns:
        float32 `(batch, 1, height, width)`.
    """
    zero = torch.zeros(len(images), 1, 1, 1, dtype=torch.float32, device=images.device)
    hu = is_hu.view(-1, 1, 1, 1)
    low = torch.where(hu, window.low, zero)
    high = torch.where(hu, window.high, zero + DISPLAY_MAX)
    return ((images - low) / (high - low)).clamp(0, 1)
