"""What may be concluded: supported, contradicted, or undecided with what could have been seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hounsfield.judge.answers import ALPHA, Answer, decimals
from hounsfield.judge.declared import Primary
from hounsfield.judge.questions import reach
from hounsfield.wording import percent

Outcome = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """A hypothesis and what became of it.

    Attributes:
        hypothesis: The claim, as a sentence.
        kind: `better` (higher at the fraction) or `robust` (loses less with few labels).
        primary: Whether it was declared for this task and protocol.
        arm, baseline, task, protocol, level, metric, fraction: What it is about.
        verdict: The outcome.
        because: Why, as a sentence with the numbers.
        difference: Arm less baseline at the fraction.
        drop_difference: Arm's drop less the baseline's, for `robust`.
        smallest_effect: Effect that this study shows with 80 % probability, where undecided; None
            too where it shows none whatever.
    """

    hypothesis: str
    kind: Literal["better", "robust"]
    primary: bool
    arm: str
    baseline: str
    task: str
    protocol: str
    level: str
    metric: str
    fraction: float
    verdict: Outcome
    because: str
    difference: Answer | None
    drop_difference: Answer | None
    smallest_effect: float | None


def verdicts(answers: Sequence[Answer], primary: Primary) -> Iterator[Verdict]:
    """The verdict on the primary contrast, then one on each hypothesis, task and protocol.

    Args:
        answers: With their p-values adjusted within their families.
        primary: What was declared.
    """
    asked = {
        (one.kind, one.task, one.protocol, one.arm, one.baseline): one
        for one in answers
        if (one.level, one.metric, one.fraction)
        == (primary.level, primary.metric, primary.fraction)
    }
    home = (primary.task, primary.protocol)
    contrast = (primary.arm, primary.baseline)
    yield _better(primary, asked.get(("difference", *home, *contrast)))
    for place in dict.fromkeys([home, *((one.task, one.protocol) for one in answers)]):
        for pair in primary.hypotheses:
            difference = asked.get(("difference", *place, *pair))
            drops = asked.get(("drop_difference", *place, *pair))
            yield _robust(primary, pair, place, difference, drops)


def _better(primary: Primary, found: Answer | None) -> Verdict:
    outcome: Outcome = "undecided"
    if found is None or found.low is None or found.estimate is None or found.p_holm is None:
        because = _no_number(found)
    else:
        if found.p_holm < ALPHA:
            outcome = "supported" if found.estimate > 0 else "contradicted"
        p = found.p_holm
        p_told = f"p = {p:.{decimals(p)}f}" if p >= 0.001 else "p < 0.001"
        because = f"the difference is {_said(found)}, Holm-adjusted {p_told}."
        if outcome == "undecided":
            because += _could_have_seen(found)
    share = percent(primary.fraction)
    return _verdict(
        primary,
        (primary.arm, primary.baseline),
        (primary.task, primary.protocol),
        f"{primary.arm} is better than {primary.baseline} with {share} of the labels",
        (outcome, because),
        difference=found,
        drops=None,
    )


def _robust(
    primary: Primary,
    pair: tuple[str, str],
    place: tuple[str, str],
    difference: Answer | None,
    drops: Answer | None,
) -> Verdict:
    arm, baseline = pair
    return _verdict(
        primary,
        pair,
        place,
        f"{arm} is more robust to few labels than {baseline}",
        _weighed(primary, baseline, difference, drops),
        difference=difference,
        drops=drops,
        kind="robust",
    )


def _verdict(
    primary: Primary,
    pair: tuple[str, str],
    place: tuple[str, str],
    hypothesis: str,
    weighed: tuple[Outcome, str],
    *,
    difference: Answer | None,
    drops: Answer | None,
    kind: Literal["better", "robust"] = "better",
) -> Verdict:
    outcome, because = weighed
    decisive = difference if kind == "better" else drops
    effect = decisive.smallest_effect if decisive and outcome == "undecided" else None
    if decisive and effect is not None and effect > reach(decisive.kind):
        effect = None
    return Verdict(
        hypothesis=hypothesis,
        kind=kind,
        primary=place == (primary.task, primary.protocol),
        arm=pair[0],
        baseline=pair[1],
        task=place[0],
        protocol=place[1],
        level=primary.level,
        metric=primary.metric,
        fraction=primary.fraction,
        verdict=outcome,
        because=because,
        difference=difference,
        drop_difference=drops,
        smallest_effect=effect,
    )


def _weighed(
    primary: Primary, baseline: str, difference: Answer | None, drops: Answer | None
) -> tuple[Outcome, str]:
    """A smaller drop alone proves nothing: a poor arm has nothing to lose."""
    if (
        drops is None
        or drops.estimate is None
        or drops.low is None
        or drops.p_holm is None
        or difference is None
        or difference.low is None
        or difference.high is None
    ):
        return "undecided", _no_number(drops if difference and difference.low else difference)
    share, margin = percent(primary.fraction), primary.margin
    numbers = (
        f"its drop minus that of {baseline} is {_said(drops)}, and its level with {share} of the "
        f"labels minus that of {baseline} is {_said(difference)}"
    )
    if drops.p_holm < ALPHA and drops.estimate > 0:
        return "contradicted", f"{numbers}: it loses more."
    if difference.high < -margin:
        return "contradicted", f"{numbers}: it is inferior there, by more than {margin:g}."
    if drops.p_holm >= ALPHA:
        return "undecided", f"{numbers}.{_could_have_seen(drops)}"
    if difference.low < -margin:
        return "undecided", (
            f"{numbers}: it loses less, but may be inferior there by more than {margin:g}, and a "
            "poor arm has nothing to lose."
        )
    return "supported", f"{numbers}: it loses less and is not inferior (margin {margin:g})."


def _said(one: Answer) -> str:
    return f"{one.estimate:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def _could_have_seen(one: Answer) -> str:
    if one.smallest_effect is None:
        return ""
    if one.smallest_effect > reach(one.kind):
        return " No difference whatever could have been seen."
    what = "Differences" if one.kind == "difference" else "Differences of drops"
    return f" {what} below {one.smallest_effect:.3f} could not be seen."


def _no_number(one: Answer | None) -> str:
    if one is None:
        return "the study has no such numbers (yet)."
    return f"{one.reason or 'no interval holds'}."
