"""Paired differences between arms against a baseline that the reader chooses."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from hounsfield.report import drawing, words
from hounsfield.report.drawing import Figure
from hounsfield.report.html import Section, render
from hounsfield.report.points import (
    PRIMARY,
    Point,
    both_ways,
    first_baseline,
    judged_tasks,
    levels,
    points,
)
from hounsfield.report.study_folder import Study
from hounsfield.report.style import Style

ROW = 17  # pixels for an interval


def section(study: Study, style: Style) -> Section:
    """A forest plot for each task, protocol and level."""
    figures = [
        figure
        for task in judged_tasks(study)
        for protocol in study.protocols
        for level in levels(study, task)
        for figure in _figure(study, task, protocol, level, style)
    ]
    against = {point.baseline for point in both_ways(points(study, kind="difference"))}
    body = render(
        "differences",
        figures=figures,
        baselines=[
            {"name": words.arm_name(arm), "first": arm == first_baseline(study)}
            for arm in study.arms
            if arm in against
        ],
    )
    return Section("differences", "Differences between arms", body, figures)


def _figure(study: Study, task: str, protocol: str, level: str, style: Style) -> list[Figure]:
    found = points(
        study, kind="difference", task=task, protocol=protocol, level=level, metric=PRIMARY
    )
    both = [point for point in both_ways(found) if point.estimate is not None]
    if not both:
        return []
    several = f", protocol {protocol}" if len(study.protocols) > 1 else ""
    return [
        Figure(
            f"differences-{words.slug(task, protocol, level)}",
            f"{task}, by {level}{several}",
            f"Difference in {words.metric_name(PRIMARY)}, arm minus baseline, "
            f"judged on {found[0].judged_on}.",
            forest(both, study=study, style=style, what="difference"),
        )
    ]


def forest(found: Sequence[Point], *, study: Study, style: Style, what: str) -> dict[str, Any]:
    """The specification of a forest plot: a row for each fraction and arm, zero marked.

    Args:
        found: Points of one task; those with a baseline are shown when theirs is chosen.
        study: For the order of arms and fractions.
        style: Colours and sizes.
        what: The title of the axis.
    """
    arms = [arm for arm in study.arms if arm in {point.arm for point in found}]
    fractions = sorted({point.fraction for point in found if point.fraction}, reverse=True)
    order = [words.percent(fraction) for fraction in fractions]
    paired = any(point.baseline for point in found)
    first = words.arm_name(first_baseline(study))
    base = alt.Chart(drawing.ROWS).encode(
        y=alt.Y("fraction:N", title="labels", sort=order).scale(paddingInner=0.25),
        yOffset=alt.YOffset("arm:N", sort=[words.arm_name(arm) for arm in arms]),
        color=drawing.by_colour(arms, style),
        opacity=drawing.isolated(1),
    )
    if paired:
        base = base.transform_filter("datum.baseline == baseline")
    whisker = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=what), x2="high:Q")
    marker = base.mark_point(filled=True, size=75).encode(
        x=alt.X("estimate:Q", title=what),
        shape=drawing.by_shape(arms, style),
        tooltip=[
            alt.Tooltip("arm:N"),
            alt.Tooltip("text:N", title=what),
            alt.Tooltip("p:N", title="p"),
            alt.Tooltip("holm:N", title="p (Holm)"),
            alt.Tooltip("judged:N", title="judged on"),
            alt.Tooltip("limits:N", title="mind"),
        ],
    )
    zero = alt.Chart(drawing.constant(zero=0)).mark_rule(color=style.soft).encode(x="zero:Q")
    says = "; ".join(
        f"{words.arm_name(point.arm)} at {words.percent(point.fraction or 0)}: {point.text}"
        for point in found
        if not paired or point.baseline == first_baseline(study)
    )
    return drawing.finish(
        alt.layer(zero, whisker, marker),
        style,
        says=f"{words.sentence(what)}. {says}.",
        data=[_row(point) for point in found],
        height=max(len(fractions) * len(arms) * ROW, 60) + 70,
        parameters=[("baseline", first)] if paired else (),
    )


def _row(point: Point) -> dict[str, Any]:
    return {
        "arm": words.arm_name(point.arm),
        "baseline": words.arm_name(point.baseline or ""),
        "fraction": words.percent(point.fraction or 0),
        "estimate": point.estimate,
        "low": point.low,
        "high": point.high,
        "text": point.text,
        "p": words.p_value(point.p),
        "holm": words.p_value(point.p_holm),
        "judged": point.judged_on,
        "limits": point.limits or words.DASH,
    }
