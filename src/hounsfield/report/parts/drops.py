"""What is lost with fewer labels, the area under the label curve, and how many labels are saved."""

from collections.abc import Mapping
from typing import Any

from hounsfield.report import words
from hounsfield.report.drawing import Figure
from hounsfield.report.html import Grid, Section, grid, render
from hounsfield.report.parts.answer import because, claim
from hounsfield.report.parts.differences import forest
from hounsfield.report.points import PRIMARY, Point, judged_tasks, levels, points
from hounsfield.report.study_folder import Study
from hounsfield.report.style import Style

SUMS = {
    "drop_difference": "difference of drops",
    "curve_area": "area under the label curve",
    "curve_area_difference": "difference of areas",
    "labels_saved": "labels saved",
}


def section(study: Study, style: Style) -> Section:
    """Forest plots of the drops; tables of what is made of them; the verdicts."""
    figures = [
        figure
        for task in judged_tasks(study)
        for protocol in study.protocols
        for level in levels(study, task)
        for figure in _figure(study, task, protocol, level, style)
    ]
    tables = [table for table in (_table(study, kind) for kind in SUMS) if table.rows]
    body = render("drops", figures=figures, tables=tables, verdicts=[*map(_said, study.verdicts)])
    return Section("drops", "Drops and labels saved", body, figures)


def _figure(study: Study, task: str, protocol: str, level: str, style: Style) -> list[Figure]:
    found = points(study, kind="drop", task=task, protocol=protocol, level=level, metric=PRIMARY)
    found = [point for point in found if point.estimate is not None]
    if not found:
        return []
    several = f", protocol {protocol}" if len(study.protocols) > 1 else ""
    return [
        Figure(
            f"drops-{words.slug(task, protocol, level)}",
            f"{task}, by {level}{several}",
            f"Drop in {words.metric_name(PRIMARY)} from all labels to fewer, "
            f"judged on {found[0].judged_on}.",
            forest(found, study=study, style=style, what="drop from all labels"),
        )
    ]


def _table(study: Study, kind: str) -> Grid:
    found = points(study, kind=kind, metric=PRIMARY)
    heads = ["task", "level", "arm", "baseline", "labels", SUMS[kind], "p", "p (Holm)", "mind"]
    used = [
        place
        for place, head in enumerate(heads)
        if head not in ("baseline", "labels", "p", "p (Holm)")
        or any(_cells(point)[place] not in ("", words.DASH) for point in found)
    ]
    return grid(
        words.sentence(SUMS[kind]),
        [heads[place] for place in used],
        [[_cells(point)[place] for place in used] for point in found],
    )


def _cells(point: Point) -> list[str]:
    return [
        point.task,
        point.level,
        words.arm_name(point.arm),
        words.arm_name(point.baseline or ""),
        words.percent(point.fraction) if point.fraction else "",
        point.text,
        words.p_value(point.p),
        words.p_value(point.p_holm),
        point.limits,
    ]


def _said(verdict: Mapping[str, Any]) -> dict[str, str]:
    return {
        "claim": claim(verdict),
        "verdict": str(verdict.get("verdict") or ""),
        "because": words.sentence(because(verdict)),
    }
