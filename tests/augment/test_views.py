import pytest
import torch

from hounsfield.augment.views import RECIPES, recipe
from hounsfield.errors import ConfigError


def images(batch: int = 6, size: int = 96) -> torch.Tensor:
    drawn = torch.randint(-1000, 1000, (batch, 1, size, size), generator=chance(9))
    return drawn.to(torch.int16)


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", RECIPES)
def test_equal_generators_make_equal_views_and_leave_the_global_one_alone(name):
    is_hu = torch.tensor([True, False] * 3)
    before = torch.get_rng_state()
    first = recipe(name, size=64)(images(), is_hu, chance(1))
    again = recipe(name, size=64)(images(), is_hu, chance(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_an_unknown_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"unknown recipe 'two_view'\. Did you mean 'two_views'"):
        recipe("two_view", size=64)
