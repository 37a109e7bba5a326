"""Label curves: how each arm does as its labelled training set shrinks."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from hounsfield.report import drawing, words
from hounsfield.report.html import Section, render
from hounsfield.report.panels import panels
from hounsfield.report.points import PRIMARY, Point
from hounsfield.report.study_folder import Study
from hounsfield.report.style import Style

CROWDED = 4  # with more fractions, the count of images is left to the tooltip and the table
MARGIN = 1.2  # the axis goes beyond the outermost fractions by this factor
APART = 0.016  # of the axis, between the arms at one fraction, so that none hides another


def section(study: Study, style: Style) -> Section:
    """A figure for each task, protocol and level."""
    figures = panels(
        study,
        "level",
        name="curve",
        caption=words.sentence(words.metric_name(PRIMARY)),
        draw=lambda found: curve(found, arms=study.arms, style=style),
    )
    several = len(study.fractions) > 1
    body = render("curves", figures=figures, several=several)
    return Section("curves", "Label curves" if several else "Values", body, figures)


def curve(found: Sequence[Point], *, arms: Sequence[str], style: Style) -> dict[str, Any]:
    """The specification of one task's label curves: an arm a line, its 95 % interval a band.

    Args:
        found: Points of one task, protocol, level and metric, with an estimate and a fraction.
        arms: The study's arms, in the study's order.
        style: Colours and sizes.
    """
    shown = [arm for arm in arms if arm in {point.arm for point in found}]
    metric = words.metric_name(found[0].metric)
    base = alt.Chart(drawing.ROWS).encode(
        x=_fraction_axis(found), color=drawing.by_colour(shown, style), opacity=drawing.isolated(1)
    )
    y = alt.Y("estimate:Q", title=metric).scale(zero=False, nice=True)
    band = base.mark_area().encode(y="low:Q", y2="high:Q", opacity=drawing.isolated(0.07))
    whisker = base.mark_rule(strokeWidth=1.2).encode(
        y="low:Q", y2="high:Q", opacity=drawing.isolated(0.8)
    )
    line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=drawing.by_dash(shown, style))
    marker = base.mark_point(size=75, filled=True).encode(
        y=y,
        shape=drawing.by_shape(shown, style),
        tooltip=[
            alt.Tooltip("arm:N"),
            alt.Tooltip("text:N", title=metric),
            alt.Tooltip("trained:N", title="trained on"),
            alt.Tooltip("judged:N", title="judged on"),
            alt.Tooltip("limits:N", title="mind"),
        ],
    )
    says = "; ".join(
        f"{words.arm_name(point.arm)} at {words.percent(point.fraction or 0)}: {point.text}"
        for point in found
    )
    chart = alt.layer(_chance(style), band, whisker, line, marker)
    return drawing.finish(
        chart,
        style,
        says=f"{metric} by share of the labels. {says}.",
        data=[
            _row(point, place) for point, place in zip(found, _places(found, shown), strict=True)
        ],
    )


def _domain(found: Sequence[Point]) -> tuple[float, float]:
    """The fractions that the axis spans."""
    fractions = [point.fraction for point in found if point.fraction]
    return min(fractions) / MARGIN, max(fractions) * MARGIN


def _fraction_axis(found: Sequence[Point]) -> alt.X:
    """A logarithmic axis whose ticks are the study's fractions and nothing else."""
    fractions = sorted({point.fraction for point in found if point.fraction})
    scale = alt.Scale(type="log", domain=_domain(found), nice=False, clamp=True)
    axis = alt.Axis(
        values=fractions, labelExpr=_ticks(found, fractions), labelOverlap=False, grid=False
    )
    return alt.X("place:Q", title="labelled training patients", scale=scale, axis=axis)


def _ticks(found: Sequence[Point], fractions: Sequence[float]) -> str:
    """A Vega expression that writes patients and images under each fraction."""
    labels = "''"
    for fraction in fractions:
        here = [point for point in found if point.fraction == fraction]
        patients = [count for point in here for count in point.patients]
        images = [count for point in here for count in point.images]
        lines = [words.percent(fraction)]
        if patients:
            lines.append(f"{words.span(patients)} pat.")
        if images and len(fractions) <= CROWDED:
            lines.append(f"{words.span(images)} img.")
        text = ", ".join(f"'{line}'" for line in lines)
        labels = f"abs(datum.value / {fraction!r} - 1) < 1e-6 ? [{text}] : {labels}"
    return labels


def _chance(style: Style) -> Any:
    """What guessing gives: an AUC of one half, whatever the classes and their shares."""
    base = alt.Chart(drawing.constant(chance=0.5, word="chance")).encode(y="chance:Q")
    rule = base.mark_rule(strokeDash=[2, 4], color=style.soft)
    text = base.mark_text(align="right", dx=-4, dy=-7, fontSize=11, color=style.soft).encode(
        x=alt.value("width"), text="word:N"
    )
    return rule + text


def _places(found: Sequence[Point], arms: Sequence[str]) -> list[float]:
    """Where on the axis each point stands: at its fraction, arms side by side around it."""
    lowest, highest = _domain(found)
    beside = min((highest / lowest) ** APART, MARGIN ** (2 / len(arms)))
    middle = (len(arms) - 1) / 2
    return [(point.fraction or 0) * beside ** (arms.index(point.arm) - middle) for point in found]


def _row(point: Point, place: float) -> dict[str, Any]:
    return {
        "arm": words.arm_name(point.arm),
        "place": place,
        "estimate": point.estimate,
        "low": point.low,
        "high": point.high,
        "text": point.text,
        "trained": point.trained_on,
        "judged": point.judged_on,
        "limits": point.limits or words.DASH,
    }
