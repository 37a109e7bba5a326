"""The answer in two sentences: the primary comparison, then what became of the claim."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hounsfield.judge.answers import ALPHA
from hounsfield.report import words
from hounsfield.report.points import PRIMARY, Point, both_ways, main_level, main_protocol, points
from hounsfield.report.study_folder import Study

OUTCOMES = {
    "supported": "This study supports the claim that {claim}",
    "contradicted": "This study contradicts the claim that {claim}",
    "undecided": "This study leaves undecided whether {claim}",
}


def answer(study: Study) -> list[str]:
    """Two sentences with intervals; one that says what is missing where there are no numbers."""
    return [*_compared(study), *_claimed(study)][:2]


def claim(verdict: Mapping[str, Any]) -> str:
    """What a verdict is about, in the names that papers use."""
    arm, baseline = (words.arm_name(str(verdict.get(key))) for key in ("arm", "baseline"))
    where = f" on {verdict['task']}" if verdict.get("task") else ""
    if verdict.get("kind") == "robust":
        return f"{arm} is more robust to few labels than {baseline}{where}"
    fraction = verdict.get("fraction")
    at = f" with {words.percent(fraction)} of the labels" if isinstance(fraction, float) else ""
    return f"{arm} is better than {baseline}{at}{where}"


def because(verdict: Mapping[str, Any]) -> str:
    """The judge's reason, with true minus signs and the names that papers use."""
    text = words.signs(str(verdict.get("because") or ""))
    for key in ("arm", "baseline"):
        arm = str(verdict.get(key))
        name = words.arm_name(arm).replace("\\", r"\\")
        text = re.sub(rf"(?<!\w){re.escape(arm)}(?!\w)", name, text)
    return text


def _compared(study: Study) -> Iterator[str]:
    primary = study.facts.get("primary")
    if not isinstance(primary, Mapping) or not study.tasks:
        yield "This study names no primary question; the page describes what was found."
        return
    task = str(primary.get("task") or study.tasks[0].name)
    place: dict[str, Any] = {
        "task": task,
        "protocol": str(primary.get("protocol") or main_protocol(study)),
        "level": str(primary.get("level") or main_level(study, task)),
        "metric": str(primary.get("metric") or PRIMARY),
    }
    arm, baseline = str(primary.get("arm")), str(primary.get("baseline"))
    fraction = primary.get("fraction") or min(study.fractions, default=None)
    here = [point for point in points(study, **place) if point.fraction == fraction]
    levels = {point.arm: point for point in here if point.estimate is not None}
    gaps = [
        point
        for point in both_ways(points(study, kind="difference", **place))
        if (point.arm, point.baseline, point.fraction) == (arm, baseline, fraction)
    ]
    names = words.arm_name(arm), words.arm_name(baseline)
    if arm not in levels or baseline not in levels:
        yield (
            f"The question was how {names[0]} compares with {names[1]} on {task}, but this study "
            "has no numbers for it yet."
        )
        return
    yield _sentence(names, levels[arm], levels[baseline], gaps[0] if gaps else None)


def _sentence(names: tuple[str, str], arm: Point, base: Point, gap: Point | None) -> str:
    patients = f" ({words.spanned(arm.patients, 'training patient')})" if arm.patients else ""
    metric = words.metric_name(arm.metric)
    start = (
        f"With {words.percent(arm.fraction or 0)} of the labels{patients}, {names[0]} reaches "
        f"{_article(metric)} {metric} of {arm.text} by {arm.level} on {arm.task}, "
        f"and {names[1]} {base.text}"
    )
    if gap is None or gap.low is None or gap.high is None:
        why = f": {gap.reason}" if gap and gap.reason else ""
        return f"{start}; no interval holds for the difference{why}."
    said = f"the paired difference is {gap.text}, {_adjusted(gap)}"
    judged = (
        f" ({words.plural(arm.n_patients or 0, 'test patient')}, "
        f"{words.plural(arm.repeats or 0, 'repeat')})"
    )
    if gap.low > 0:
        end = f"so {names[0]} is better"
    elif gap.high < 0:
        end = f"so {names[0]} is worse"
    else:
        end = "so the two cannot be told apart"
    if gap.p_holm is not None and (gap.low > 0 or gap.high < 0) and gap.p_holm >= ALPHA:
        end = "which does not stand once all declared comparisons are counted"
    return f"{start}; {said}, {end}{judged}."


def _claimed(study: Study) -> Iterator[str]:
    claims = sorted(
        (one for one in study.verdicts if one.get("kind") == "robust"),
        key=lambda one: not one.get("primary"),
    )
    for one in claims[:1]:
        outcome = OUTCOMES.get(str(one.get("verdict")), OUTCOMES["undecided"])
        outcome = outcome.format(claim=claim(one))
        yield f"{outcome}: {words.finished(because(one) or 'no reason is stored')}"


def _adjusted(gap: Point) -> str:
    if gap.p_holm is not None:
        return f"Holm-adjusted p {_is(gap.p_holm)}"
    return f"p {_is(gap.p)}, not adjusted" if gap.p is not None else "without a test"


def _is(p: float) -> str:
    text = words.p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _article(word: str) -> str:
    return "an" if word[:1].lower() in "aeiou" else "a"
