"""`report(study, out)`: from stored results to a page, in seconds, without torch."""

from pathlib import Path

from hounsfield import __version__
from hounsfield.files import write_text
from hounsfield.report import html, words
from hounsfield.report.figures import Figure, label_curve
from hounsfield.report.points import PRIMARY, Point, judged_tasks, levels, points
from hounsfield.report.study_folder import Study, read
from hounsfield.report.style import Style, page_style

PAGE = "report.html"


def report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of the study in `folder` into `out` and give the page's path.

    Args:
        folder: What `hounsfield study` wrote, finished or not.
        out: Where the page goes; `folder/report` without it.

    Raises:
        InputError: `folder` is not a study.
        DiskError: `out` cannot be written.
    """
    study = read(folder)
    page = (out or folder / "report") / PAGE
    write_text(page, _page(study))
    return page


def _page(study: Study) -> str:
    style = page_style(study.arms)
    return html.page(
        title=str(study.facts.get("name") or study.folder.resolve().name),
        subtitle=f"Report of a study by hounsfield {__version__}.",
        answer=(),
        limits=study.missing,
        sections=[_curves(study, style), _table(study)],
        arms=study.arms,
        footer=f"Made by hounsfield {__version__} from stored results.",
    )


def _curves(study: Study, style: Style) -> html.Section:
    figures = [
        figure
        for task in judged_tasks(study)
        for protocol in study.protocols
        for level in levels(study, task)
        for figure in _curve(study, task, protocol, level, style)
    ]
    body = html.render("curves", figures=figures)
    return html.Section("curves", "Label curves", body, figures)


def _curve(study: Study, task: str, protocol: str, level: str, style: Style) -> list[Figure]:
    found = points(study, task=task, protocol=protocol, level=level, metric=PRIMARY)
    if not any(point.fraction for point in found):
        return []
    spec = label_curve(found, arms=study.arms, chance=0.5, style=style)
    name = f"curve-{len(study.results)}-{task}-{protocol}-{level}"
    return [Figure(name, f"{task}, by {level}", f"Judged on {found[0].judged_on}.", spec)]


def _table(study: Study) -> html.Section:
    rows = [_row(point) for point in points(study)]
    heads = ["task", "arm", "fraction", "metric", "level", "value with 95 % interval", "limits"]
    table = html.Grid("All numbers", [html.Head(head) for head in heads], rows, sortable=True)
    return html.Section("table", "All numbers", html.render("table", table=table))


def _row(point: Point) -> list[html.Cell]:
    return [
        html.Cell(point.task),
        html.Cell(words.arm_name(point.arm)),
        html.Cell(words.percent(point.fraction) if point.fraction else "", point.fraction or ""),
        html.Cell(words.metric_name(point.metric)),
        html.Cell(point.level),
        html.Cell(point.text, "" if point.estimate is None else point.estimate, "v"),
        html.Cell(point.limits),
    ]
