"""Verdicts on numbers that leave no doubt, or all of it."""

from dataclasses import replace

import pytest

from hounsfield.judge.answers import Answer
from hounsfield.judge.declared import Primary
from hounsfield.judge.verdicts import verdicts

PRIMARY = Primary(
    arm="spark",
    baseline="scratch",
    task="bleed",
    protocol="fair",
    metric="auc",
    level="slice",
    fraction=0.1,
    family=(("spark", "scratch"),),
    hypotheses=(("spark", "moco_v2"),),
)


def answer(kind, baseline, estimate, half, **rest):
    p = 0.001 if abs(estimate) > half else 0.5
    return Answer(
        kind, "bleed", "fair", "slice", "auc", "spark", baseline, 0.1,
        estimate=estimate, low=estimate - half, high=estimate + half, p=p, p_holm=p,
        smallest_effect=1.5 * half, **rest,
    )  # fmt: skip


def judged(*, drop, gain, half=0.02):
    """The verdict on "spark is more robust than moco_v2"."""
    found = [
        answer("difference", "scratch", 0.1, 0.02),
        answer("difference", "moco_v2", gain, half),
        answer("drop_difference", "moco_v2", drop, half),
    ]
    return list(verdicts(found, PRIMARY))[1]


def test_a_smaller_drop_of_an_arm_that_is_not_inferior_supports():
    found = judged(drop=-0.1, gain=0.05)
    assert found.verdict == "supported"
    assert found.smallest_effect is None


def test_a_poor_arm_has_nothing_to_lose():
    found = judged(drop=-0.1, gain=-0.04)
    assert found.verdict == "undecided"
    assert "a poor arm has nothing to lose" in found.because


def test_an_arm_that_is_clearly_inferior_contradicts_whatever_its_drop():
    assert judged(drop=-0.1, gain=-0.2).verdict == "contradicted"


def test_a_larger_drop_contradicts():
    assert judged(drop=0.1, gain=0.05).verdict == "contradicted"


def test_no_clear_drop_is_undecided_with_what_could_have_been_seen():
    found = judged(drop=-0.01, gain=0.05)
    assert found.verdict == "undecided"
    assert found.smallest_effect == pytest.approx(0.03)
    assert "Differences of drops below 0.030 could not be seen." in found.because


def test_where_no_difference_could_be_seen_the_verdict_says_so_and_names_none():
    found = judged(drop=-0.01, gain=0.05, half=1.5)
    assert found.verdict == "undecided"
    assert found.smallest_effect is None
    assert found.because.endswith(". No difference whatever could have been seen.")


def test_the_first_verdict_is_on_the_primary_contrast():
    first, _ = verdicts([answer("difference", "scratch", 0.1, 0.02)], PRIMARY)
    assert first.hypothesis == "spark is better than scratch with 10 % of the labels"
    assert first.verdict == "supported"


def test_a_primary_contrast_that_holms_p_does_not_carry_is_undecided():
    found = replace(answer("difference", "scratch", 0.1, 0.02), p_holm=0.06)
    assert next(verdicts([found], PRIMARY)).verdict == "undecided"


@pytest.mark.parametrize(
    ("p", "told", "verdict"),
    [
        (0.0497, "p = 0.0497.", "supported"),
        (0.04999, "p = 0.04999.", "supported"),
        (0.05, "p = 0.050.", "undecided"),
        (0.0502, "p = 0.050.", "undecided"),
        (0.0123, "p = 0.012.", "supported"),
    ],
)
def test_a_p_value_is_printed_on_its_side_of_the_level(p, told, verdict):
    found = replace(answer("difference", "scratch", 0.1, 0.02), p_holm=p)
    first = next(iter(verdicts([found], PRIMARY)))
    assert first.verdict == verdict
    assert told in first.because


def test_numbers_without_an_interval_are_undecided_for_their_reason():
    found = Answer(
        "difference", "bleed", "fair", "slice", "auc", "spark", "scratch", 0.1,
        estimate=0.1, reason="not enough patients: 2 of 9", p_holm=1.0,
    )  # fmt: skip
    first, second = verdicts([found], PRIMARY)
    assert (first.verdict, first.because) == ("undecided", "not enough patients: 2 of 9.")
    assert (second.verdict, second.because) == (
        "undecided",
        "the study has no such numbers (yet).",
    )
