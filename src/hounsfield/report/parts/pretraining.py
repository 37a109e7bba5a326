"""The pre-trainings: did they learn, did they stay healthy, what did they cost."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from hounsfield.report import drawing, words
from hounsfield.report.drawing import Figure
from hounsfield.report.html import Grid, Section, grid, render
from hounsfield.report.pictures import picture
from hounsfield.report.study_folder import Run, Study
from hounsfield.report.style import Style

MOST_POINTS = 300  # of a curve; a longer log is thinned
NOT_HEALTH = ("step", "epoch", "loss", "lr", "time", "images_per_s", "wait_s", "progress")


def section(study: Study, style: Style) -> Section:
    """A row a run, its loss, whatever else it logged, and its reconstructions."""
    figures = [figure for run in study.runs for figure in _figures(run, study, style)]
    pictures = [
        shown
        for entry in study.pictures.get("reconstructions") or ()
        if (shown := picture(study, entry)) is not None
    ]
    body = render("pretraining", table=_table(study.runs), figures=figures, pictures=pictures)
    return Section("pretraining", "Pre-training", body, figures)


def _table(runs: Sequence[Run]) -> Grid:
    heads = ["run", "backbone", "state", "images/s", "wall time", "steps", "images", "first loss",
             "last loss"]  # fmt: skip
    return grid("Pre-training runs", heads, [_row(run) for run in runs])


def _row(run: Run) -> list[str]:
    losses = [line["loss"] for line in run.metrics if _is_number(line.get("loss"))]
    wall, rate = run.summary.get("wall_s"), run.summary.get("images_per_s")
    return [
        f"{words.arm_name(run.name)} ({run.folder.name[:8]})",
        str(run.config.get("backbone", words.DASH)),
        "ended" if run.summary.get("done") else "not ended",
        f"{rate:,.0f}" if _is_number(rate) else words.DASH,
        words.duration(wall if _is_number(wall) else None),
        _count(run.summary.get("steps")),
        _count(run.summary.get("images") or run.config.get("corpus_size")),
        words.number(losses[0]) if losses else words.DASH,
        words.number(losses[-1]) if losses else words.DASH,
    ]


def _figures(run: Run, study: Study, style: Style) -> Iterator[Figure]:
    name = words.arm_name(run.name)
    place = run.folder.name[:8]
    for measure, series in _series(run.metrics):
        title = "Loss" if measure == "loss" else words.sentence(measure.replace("_", " "))
        yield Figure(
            f"pretraining-{words.slug(run.name, place, measure)}",
            f"{name}: {title.lower() if measure == 'loss' else measure.replace('_', ' ')}",
            f"Run {place}. {len(series)} of {len(run.metrics)} logged steps are drawn.",
            _line(series, title=title, arm=run.name, arms=study.arms, style=style),
        )


def _series(metrics: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The loss first, then what tells whether the features stay healthy; thinned evenly."""
    names = dict.fromkeys(
        ["loss", *(name for line in metrics for name in line if name not in NOT_HEALTH)]
    )
    for name in names:
        found = [
            {"step": line["step"], "value": line[name]}
            for line in metrics
            if _is_number(line.get(name)) and _is_number(line.get("step"))
        ]
        if len(found) > 1:
            stride = -(-len(found) // MOST_POINTS)
            yield name, [*found[:-1:stride], found[-1]]


def _line(
    series: Sequence[dict[str, Any]],
    *,
    title: str,
    arm: str,
    arms: Sequence[str],
    style: Style,
) -> dict[str, Any]:
    chart = (
        alt.Chart(drawing.ROWS)
        .mark_line(strokeWidth=1.5, color=style.colours.get(arm, style.ink))
        .encode(
            x=alt.X("step:Q", title="step").axis(grid=False, tickCount=5),
            y=alt.Y("value:Q", title=title).scale(zero=False),
            tooltip=["step:Q", alt.Tooltip("value:Q", title=title, format=".4g")],
        )
    )
    ends = f"from {series[0]['value']:.4g} to {series[-1]['value']:.4g}"
    return drawing.finish(
        chart, style, says=f"{title} over the steps, {ends}.", data=series, height=190
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else words.DASH
