import pytest
import torch

from hounsfield.data.window import WINDOWS, Window, to_unit, window_of
from hounsfield.errors import ConfigError
from hounsfield.units import DISPLAY_MAX


def test_hu_pass_the_window_and_display_values_their_own_scale() -> None:
    hu = [-2000, 0, 20, 80, 3000]
    display = [0, 1, DISPLAY_MAX // 2, DISPLAY_MAX - 1, DISPLAY_MAX]
    images = torch.tensor([hu, display], dtype=torch.int16).view(2, 1, 1, 5)
    unit = to_unit(images, torch.tensor([True, False]), Window(0, 80))
    assert unit.dtype == torch.float32
    expected = [[0, 0, 0.25, 1, 1], [value / DISPLAY_MAX for value in display]]
    torch.testing.assert_close(unit.view(2, 5), torch.tensor(expected))


def test_a_fresh_bleed_is_far_from_brain_in_the_brain_window_and_near_in_the_wide_one() -> None:
    images = torch.tensor([35, 70], dtype=torch.int16).view(2, 1, 1, 1)
    is_hu = torch.tensor([True, True])
    apart = {
        name: float(to_unit(images, is_hu, WINDOWS[name]).diff(dim=0)) for name in ("brain", "wide")
    }
    assert apart["brain"] > 20 * apart["wide"]


def test_an_empty_window_and_an_unknown_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="is empty"):
        Window(10, 10)
    with pytest.raises(ConfigError, match="Did you mean 'brain'"):
        window_of("brian")
