"""Paired differences between arms against a baseline that the reader chooses."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from hounsfield.report import drawing, words
from hounsfield.report.html import Section, render
from hounsfield.report.panels import panels
from hounsfield.report.points import PRIMARY, Point, both_ways, first_baseline, points
from hounsfield.report.study_folder import Study
from hounsfield.report.style import Style

ROW = 17  # pixels for an interval


def section(study: Study, style: Style) -> Section:
    """A forest plot for each task, protocol and level."""
    judged = both_ways(points(study, kind="difference"))
    against = {point.baseline for point in judged if point.estimate is not None}
    baselines = [arm for arm in study.arms if arm in against]
    first = next((arm for arm in (first_baseline(study), *baselines) if arm in against), "")

    def draw(found: Sequence[Point]) -> dict[str, Any]:
        both = both_ways(found)
        return forest(both, study=study, style=style, what="difference", baseline=first)

    figures = panels(
        study,
        "difference",
        name="differences",
        caption=f"Difference in {words.metric_name(PRIMARY)}, arm minus baseline",
        draw=draw,
    )
    choices = [{"name": words.arm_name(arm), "first": arm == first} for arm in baselines]
    body = render("differences", figures=figures, baselines=choices)
    return Section("differences", "Differences between arms", body, figures)


def forest(
    found: Sequence[Point], *, study: Study, style: Style, what: str, baseline: str = ""
) -> dict[str, Any]:
    """The specification of a forest plot: a row for each fraction and arm, zero marked.

    Args:
        found: Points of one task.
        study: For the order of arms and fractions.
        style: Colours and sizes.
        what: The title of the axis.
        baseline: Where points are differences, against whom those are that a file shows, and the
            page until another baseline is chosen.
    """
    if baseline and not style.on_page:
        found = [point for point in found if point.baseline == baseline]
        what = f"{what} from {words.arm_name(baseline)}"
    arms = [arm for arm in study.arms if arm in {point.arm for point in found}]
    fractions = sorted({point.fraction for point in found if point.fraction}, reverse=True)
    order = [words.percent(fraction) for fraction in fractions]
    base = alt.Chart(drawing.ROWS).encode(
        y=alt.Y("fraction:N", title="labels", sort=order).scale(paddingInner=0.25),
        yOffset=alt.YOffset("arm:N", sort=[words.arm_name(arm) for arm in arms]),
        color=drawing.by_colour(arms, style),
        opacity=drawing.isolated(1),
    )
    if baseline:
        base = base.transform_filter("datum.baseline == baseline")
    axis = alt.Axis(tickCount=6)
    whisker = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=what, axis=axis), x2="high:Q"
    )
    marker = base.mark_point(filled=True, size=75).encode(
        x=alt.X("estimate:Q", title=what, axis=axis),
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
        if not baseline or point.baseline == baseline
    )
    return drawing.finish(
        alt.layer(zero, whisker, marker),
        style,
        says=f"{words.sentence(what)}. {says}.",
        data=[_row(point) for point in found],
        height=max(len(fractions) * len(arms) * ROW, 60) + 70,
        parameters=[("baseline", words.arm_name(baseline))] if baseline else (),
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
