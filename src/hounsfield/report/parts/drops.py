"""What is lost with fewer labels, the area under the label curve, and how many labels are saved."""

from collections.abc import Mapping
from typing import Any

from hounsfield.report import words
from hounsfield.report.html import Grid, Section, grid, render
from hounsfield.report.panels import panels
from hounsfield.report.parts.answer import because, claim
from hounsfield.report.parts.differences import forest
from hounsfield.report.points import PRIMARY, Point, points
from hounsfield.report.study_folder import Study
from hounsfield.report.style import Style

SUMS = ("drop_difference", "curve_area", "curve_area_difference", "labels_saved")


def section(study: Study, style: Style) -> Section:
    """Forest plots of the drops; tables of what is made of them; the verdicts."""
    figures = panels(
        study,
        "drop",
        name="drops",
        caption=f"Drop in {words.metric_name(PRIMARY)} from all labels to fewer",
        draw=lambda found: forest(found, study=study, style=style, what="drop from all labels"),
    )
    tables = [table for table in (_table(study, kind) for kind in SUMS) if table.rows]
    several = len(study.fractions) > 1
    body = render(
        "drops",
        figures=figures,
        tables=tables,
        verdicts=[*map(_said, study.verdicts)],
        several=several,
    )
    return Section("drops", "Drops and labels saved" if several else "Verdict", body, figures)


def _table(study: Study, kind: str) -> Grid:
    found = points(study, kind=kind, metric=PRIMARY)
    name = words.kind_name(kind, PRIMARY)
    heads = ["task", "level", "arm", "baseline", "labels", name, "p", "p (Holm)", "mind"]
    used = [
        place
        for place, head in enumerate(heads)
        if head not in ("baseline", "labels", "p", "p (Holm)")
        or any(_cells(point)[place] not in ("", words.DASH) for point in found)
    ]
    return grid(
        words.sentence(name),
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
