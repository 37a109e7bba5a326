"""The figures about the comparison: label curves, differences, drops."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from hounsfield.report import words
from hounsfield.report.points import Point
from hounsfield.report.style import Style, arm_scales

HEIGHT = 300
FILE_WIDTH = 420  # pixels at 72 to the inch: a column of a journal
DIMMED = 0.08


@dataclass(frozen=True)
class Figure:
    """A drawing: a name for its files, a title and a sentence, and a Vega-Lite specification."""

    name: str
    title: str
    caption: str
    spec: dict[str, Any]
    wide: bool = False


def label_curve(
    found: Sequence[Point], *, arms: Sequence[str], chance: float | None, style: Style
) -> dict[str, Any]:
    """The specification of one task's label curves: an arm a line, its 95 % interval a band.

    Args:
        found: Points of one task, protocol, level and metric, at every fraction.
        arms: The study's arms, in the study's order.
        chance: The value that guessing has, drawn as a line; None draws none.
        style: Colours and sizes.
    """
    data = alt.InlineData(
        values=[_curve_row(point) for point in found if point.estimate is not None]
    )
    fractions = sorted({point.fraction for point in found if point.fraction})
    # Unlike a log axis of Vega's own: the ticks are the study's fractions and nothing else.
    x = alt.X("fraction:Q", title="labelled training patients").scale(
        type="log", domain=[fractions[0] / 1.15, fractions[-1] * 1.15], nice=False
    )
    x = x.axis(
        values=fractions, labelExpr=_tick_labels(found, fractions), labelOverlap=False, grid=False
    )
    metric = words.metric_name(found[0].metric)
    shown = {arm.arm for arm in found}
    scales = arm_scales([arm for arm in arms if arm in shown], style)
    base = alt.Chart(data).encode(
        x=x,
        color=alt.Color(
            "arm:N", title=None, scale=alt.Scale(**scales["color"]), legend=legend(style)
        ),
        opacity=isolated(1.0),
    )
    y = alt.Y("estimate:Q", title=metric).scale(zero=False, nice=True)
    band = base.mark_area(interpolate="linear").encode(
        y=alt.Y("low:Q"), y2="high:Q", opacity=isolated(0.13)
    )
    line = base.mark_line(strokeWidth=2).encode(
        y=y,
        strokeDash=alt.StrokeDash(
            "arm:N", scale=alt.Scale(**scales["strokeDash"]), legend=legend(style)
        ),
    )
    point = base.mark_point(size=70, filled=True).encode(
        y=y,
        shape=alt.Shape("arm:N", scale=alt.Scale(**scales["shape"]), legend=legend(style)),
        tooltip=[
            alt.Tooltip("arm:N"),
            alt.Tooltip("text:N", title=metric),
            alt.Tooltip("trained:N", title="trained on"),
            alt.Tooltip("judged:N", title="judged on"),
            alt.Tooltip("limits:N", title="limits"),
        ],
    )
    layers: list[Any] = [band, line, point]
    if chance is not None:
        layers.insert(0, _chance(chance, style))
    return finish(alt.layer(*layers), style)


def finish(chart: Any, style: Style, *, height: int = HEIGHT) -> dict[str, Any]:
    """The chart's specification, sized, with the parameter that isolates an arm."""
    sized = chart.properties(
        width="container" if style.on_page else FILE_WIDTH,
        height=height,
        autosize=alt.AutoSizeParams(type="fit", contains="padding"),
    ).add_params(alt.param(name="isolated", value=""))
    spec = sized.to_dict()
    del spec["$schema"]  # an address, and a newer version than the one that draws
    return {**spec, "config": style.config()}


def isolated(opacity: float) -> Any:
    """`opacity`, but nearly nothing while another arm is isolated."""
    mine = "isolated == '' || datum.arm == isolated"
    return alt.condition(mine, alt.value(opacity), alt.value(min(DIMMED, opacity / 4)))


def legend(style: Style) -> Any:
    """The page brings its own legend, of buttons; a file needs one inside."""
    return None if style.on_page else alt.Legend(title=None, columns=4)


def _chance(chance: float, style: Style) -> Any:
    data = alt.InlineData(values=[{"chance": chance, "word": "chance"}])
    base = alt.Chart(data).encode(y="chance:Q")
    rule = base.mark_rule(strokeDash=[2, 4], color=style.soft)
    text = base.mark_text(align="left", dx=4, dy=-7, fontSize=11, color=style.soft).encode(
        x=alt.value(0), text="word:N"
    )
    return rule + text


def _curve_row(point: Point) -> dict[str, Any]:
    patients = f"{words.span(point.patients)} patients, {words.span(point.images)} images"
    return {
        "arm": words.arm_name(point.arm),
        "fraction": point.fraction,
        "estimate": point.estimate,
        "low": point.low,
        "high": point.high,
        "text": point.text,
        "trained": patients if point.patients else "not known",
        "judged": point.judged_on,
        "limits": point.limits,
    }


def _tick_labels(found: Sequence[Point], fractions: Sequence[float]) -> str:
    """A Vega expression that writes patients and images under each fraction."""
    labels = "''"
    for fraction in fractions:
        here = [point for point in found if point.fraction == fraction]
        patients = words.span([count for point in here for count in point.patients])
        images = words.span([count for point in here for count in point.images])
        lines = [words.percent(fraction), f"{patients} patients", f"{images} images"]
        text = ", ".join(f"'{line}'" for line in lines)
        labels = f"abs(datum.value / {fraction!r} - 1) < 1e-6 ? [{text}] : {labels}"
    return labels
