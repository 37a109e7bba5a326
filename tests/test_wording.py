"""Counts and shares are written one way everywhere."""

import pytest

from hounsfield.wording import percent, plural


@pytest.mark.parametrize(
    ("count", "told"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1200, "1,200 rows")]
)
def test_one_is_told_from_many(count: int, told: str) -> None:
    assert plural(count, "row") == told


def test_an_odd_plural_is_given() -> None:
    assert plural(1, "series", "series") == "1 series"
    assert plural(2, "series", "series") == "2 series"


@pytest.mark.parametrize(
    ("share", "told"), [(0.0, "0 %"), (0.125, "12.5 %"), (0.5, "50 %"), (1.0, "100 %")]
)
def test_a_share_stands_apart_from_its_sign(share: float, told: str) -> None:
    assert percent(share) == told
