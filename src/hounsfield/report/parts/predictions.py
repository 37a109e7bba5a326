"""For each task: ROC, precision-recall, calibration and confusion of a cell that is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import altair as alt
import polars as pl

from hounsfield.report import drawing, words
from hounsfield.report.drawing import Figure
from hounsfield.report.html import Grid, Section, grid, render
from hounsfield.report.points import main_protocol
from hounsfield.report.quality import Quality, quality
from hounsfield.report.study_folder import Cell, Study
from hounsfield.report.style import Style

MOST_CELLS = 96  # of a task: each takes about 6 kB of the page
SQUARE = 260
LONG = 8  # letters of a class that still fit side by side


@dataclass(frozen=True)
class Shown:
    """A cell and its curves; `place` names what all arms share: the labels it was trained on."""

    cell: Cell
    place: str
    quality: Quality


def section(study: Study, style: Style) -> Section:
    """Four figures a task, over one choice of labels and, for the confusion matrix, of arm."""
    blocks, figures = [], []
    for task in study.tasks:
        found = _shown(study, task.name)
        if not found:
            continue
        drawn = _figures(study, task.name, task.classes, found, style)
        figures += drawn
        blocks.append(
            {
                "task": task.name,
                "slug": words.slug(task.name),
                "places": [*dict.fromkeys(one.place for one in found)],
                "arms": [*dict.fromkeys(words.arm_name(one.cell.arm) for one in found)],
                "figures": drawn,
                "calibration": _recalibrated(study, found),
            }
        )
    body = render("predictions", blocks=blocks)
    return Section("predictions", "One model at a time", body, figures)


def _shown(study: Study, task: str) -> list[Shown]:
    """The cells of a task that have scores, smallest training set first; repeats that fit."""
    cells = [
        cell for cell in study.cells if cell.task == task and cell.protocol == main_protocol(study)
    ]
    order = {arm: place for place, arm in enumerate(study.arms)}
    cells.sort(key=lambda cell: (cell.repeat, cell.fold, cell.fraction, order[cell.arm]))
    places = {_place(study, cell) for cell in cells}
    arms = max(len(cells) // max(len(places), 1), 1)
    found = []
    for cell in cells[: MOST_CELLS // arms * arms]:
        path = cell.folder / "scores.parquet"
        try:
            curves = quality(pl.read_parquet(path)) if path.is_file() else None
        except (OSError, ValueError, pl.exceptions.PolarsError):
            continue
        if curves is not None:
            found.append(Shown(cell, _place(study, cell), curves))
    return found


def _recalibrated(study: Study, found: Sequence[Shown]) -> Grid:
    """Calibration slope and intercept, an arm and a fraction a row."""
    heads = ["arm", "labels", "slope", "intercept", "models"]
    rows = []
    for arm in study.arms:
        for fraction in study.fractions:
            mine = [
                one.quality.recalibration
                for one in found
                if (one.cell.arm, one.cell.fraction) == (arm, fraction)
                and one.quality.recalibration
            ]
            if mine:
                both = (_mean_and_range(values) for values in zip(*mine, strict=True))
                rows.append([words.arm_name(arm), words.percent(fraction), *both, str(len(mine))])
    return grid(
        "Calibration slope and intercept: mean over the models, and their range", heads, rows
    )


def _mean_and_range(values: Sequence[float]) -> str:
    mean, low, high = (
        words.number(value, digits=2) for value in (fmean(values), min(values), max(values))
    )
    return f"{mean} ({low} to {high})" if len(values) > 1 else mean


def _place(study: Study, cell: Cell) -> str:
    fold = f", fold {cell.fold + 1}" if study.folds > 1 else ""
    return f"{words.percent(cell.fraction)} of the labels, repeat {cell.repeat + 1}{fold}"


def _figures(
    study: Study, task: str, classes: Sequence[str], found: Sequence[Shown], style: Style
) -> list[Figure]:
    arms = [arm for arm in study.arms if arm in {one.cell.arm for one in found}]
    place, arm = found[0].place, words.arm_name(arms[min(1, len(arms) - 1)])
    classes = [*classes, *map(str, range(len(classes), len(found[0].quality.confusion)))]
    mean = ", mean over classes against the rest" if len(classes) > 2 else ""
    of_class = f"of {classes[1]!r}" if len(classes) == 2 else "of the predicted class"
    roc = [_point(one, *at) for one in found for at in one.quality.roc]
    recall = [_point(one, *at) for one in found for at in one.quality.precision_recall]
    said = [_point(one, x, y, n) for one in found for x, y, n in one.quality.calibration]
    start = [("place", place)]

    def figure(name: str, title: str, caption: str, spec: dict[str, Any]) -> Figure:
        return Figure(f"{name}-{words.slug(task)}", title, caption, spec)

    return [
        figure(
            "roc",
            "ROC curve",
            f"True against false positive rate{mean}.",
            _curves(
                roc, "false positive rate", "true positive rate", arms, style, start, diagonal=True
            ),
        ),
        figure(
            "precision-recall",
            "Precision and recall",
            f"Precision at each recall{mean}.",
            _curves(recall, "recall", "precision", arms, style, start),
        ),
        figure(
            "calibration",
            "Calibration",
            f"Observed share by predicted probability {of_class}; larger marks are more images.",
            _calibration(said, arms, style, start),
        ),
        figure(
            "confusion",
            "Confusion matrix",
            "Images; each row is a true class. The darker, the larger the share of its row.",
            _confusion(found, classes, style, [*start, ("arm_shown", arm)]),
        ),
    ]


def _point(one: Shown, x: float, y: float, n: int | None = None) -> dict[str, Any]:
    count = {} if n is None else {"n": n}
    name = words.arm_name(one.cell.arm)
    return {"place": one.place, "arm": name, "x": round(x, 4), "y": round(y, 4), **count}


def _curves(
    data: Sequence[dict[str, Any]],
    across: str,
    up: str,
    arms: Sequence[str],
    style: Style,
    parameters: Sequence[tuple[str, str]],
    *,
    diagonal: bool = False,
) -> dict[str, Any]:
    lines = (
        alt.Chart(drawing.ROWS)
        .transform_filter("datum.place == place")
        .mark_line(strokeWidth=2, interpolate="linear")
        .encode(
            x=_unit("x", across),
            y=_unit("y", up),
            color=drawing.by_colour(arms, style, shape="stroke"),
            strokeDash=drawing.by_dash(arms, style, shape="stroke"),
            opacity=drawing.isolated(1),
            order="x:Q",
            tooltip=["arm:N", alt.Tooltip("x:Q", title=across), alt.Tooltip("y:Q", title=up)],
        )
    )
    layers = [_diagonal(style), lines] if diagonal else [lines]
    says = f"{up} by {across}, a line an arm."
    return drawing.finish(
        alt.layer(*layers), style, says=says, data=data, height=SQUARE, parameters=parameters
    )


def _calibration(
    data: Sequence[dict[str, Any]],
    arms: Sequence[str],
    style: Style,
    parameters: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    base = (
        alt.Chart(drawing.ROWS)
        .transform_filter("datum.place == place")
        .encode(
            x=_unit("x", "predicted probability"),
            y=_unit("y", "observed share"),
            color=drawing.by_colour(arms, style),
            opacity=drawing.isolated(0.9),
        )
    )
    lines = base.mark_line(strokeWidth=1).encode(
        order="x:Q", strokeDash=drawing.by_dash(arms, style)
    )
    marks = base.mark_point(filled=True).encode(
        shape=drawing.by_shape(arms, style),
        size=alt.Size("n:Q", legend=None, scale=alt.Scale(range=[15, 220])),
        tooltip=[
            "arm:N",
            alt.Tooltip("x:Q", title="predicted"),
            alt.Tooltip("y:Q", title="observed"),
            alt.Tooltip("n:Q", title="images"),
        ],
    )
    return drawing.finish(
        alt.layer(_diagonal(style), lines, marks),
        style,
        says="Observed share by predicted probability, a line an arm.",
        data=data,
        height=SQUARE,
        parameters=parameters,
    )


def _confusion(
    found: Sequence[Shown],
    classes: Sequence[str],
    style: Style,
    parameters: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    data = [
        {
            "place": one.place,
            "arm": words.arm_name(one.cell.arm),
            "true": classes[true],
            "predicted": classes[predicted],
            "images": int(count),
            "share": (share := round(float(count / max(row.sum(), 1)), 4)),
            "of_class": words.percent(share),
        }
        for one in found
        for true, row in enumerate(one.quality.confusion)
        for predicted, count in enumerate(row)
    ]
    slant = -35 if max(map(len, classes)) > LONG else 0
    base = (
        alt.Chart(drawing.ROWS)
        .transform_filter("datum.place == place && datum.arm == arm_shown")
        .encode(
            x=alt.X("predicted:N", sort=list(classes), title="predicted").axis(
                labelAngle=slant, labelLimit=110
            ),
            y=alt.Y("true:N", sort=list(classes), title="true"),
        )
    )
    square = base.mark_rect(color=style.ink, cornerRadius=3).encode(
        fillOpacity=alt.FillOpacity("share:Q", legend=None).scale(domain=[0, 1], range=[0.04, 0.9]),
        tooltip=["true:N", "predicted:N", "images:Q", alt.Tooltip("of_class:N", title="share")],
    )
    number = base.mark_text(fontSize=14).encode(
        text="images:Q",
        color=alt.condition("datum.share > 0.5", alt.value(style.paper), alt.value(style.ink)),
    )
    return drawing.finish(
        alt.layer(square, number),
        style,
        says="Images by true and predicted class.",
        data=data,
        height=SQUARE,
        parameters=parameters,
    )


def _unit(field: str, title: str) -> Any:
    scale = alt.Scale(domain=[0, 1], nice=False)
    axis = alt.Axis(tickCount=5, format=".1f")
    if field == "x":
        return alt.X("x:Q", title=title, scale=scale, axis=axis)
    return alt.Y("y:Q", title=title, scale=scale, axis=axis)


def _diagonal(style: Style) -> Any:
    return (
        alt.Chart(alt.InlineData(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        .mark_line(strokeDash=[2, 4], strokeWidth=1, color=style.soft)
        .encode(x="x:Q", y="y:Q")
    )
