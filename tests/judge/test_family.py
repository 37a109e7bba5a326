"""Holm's adjustment against its definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hounsfield.judge.family import holm

PS = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_the_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_comparison_without_p_stays_in_the_family():
    assert holm([0.02, None, None]) == pytest.approx([0.06, 1.0, 1.0])


@given(PS)
def test_the_definition_written_out(ps):
    ranked = sorted(range(len(ps)), key=lambda place: ps[place])
    worst = 0.0
    for rank, place in enumerate(ranked):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[place]))
        assert holm(ps)[place] == pytest.approx(worst)


@given(PS)
def test_an_adjusted_p_lies_between_the_raw_one_and_bonferronis(ps):
    for raw, adjusted in zip(ps, holm(ps), strict=True):
        assert raw <= adjusted <= min(1.0, len(ps) * raw)
