"""The full table: every number with its interval and its n, sortable."""

from hounsfield.report import words
from hounsfield.report.html import Cell, Grid, Head, Section, render
from hounsfield.report.points import PRIMARY, Point, points
from hounsfield.report.study_folder import Study
from hounsfield.report.style import Style

MOST_ROWS = 2000  # more would make the page slow; the files beside it hold every row
HEADS = (
    Head("task"),
    Head("arm"),
    Head("labels", number=True),
    Head("trained on"),
    Head("metric"),
    Head("level"),
    Head("value [95 % interval]"),
    Head("judged on"),
    Head("repeats", number=True),
    Head("mind"),
)


def section(study: Study, style: Style) -> Section:
    """Every value of every arm."""
    del style  # no figure
    found = sorted(points(study), key=lambda point: point.metric != PRIMARY)  # a stable sort
    several = len(study.protocols) > 1
    heads = [HEADS[0], Head("protocol"), *HEADS[1:]] if several else list(HEADS)
    rows = [_row(point, several=several) for point in found[:MOST_ROWS]]
    caption = "Every value of every arm. In brackets: test patients with the rarest class"
    body = render(
        "numbers",
        table=Grid(
            caption,
            heads,
            rows,
            sortable=True,
            printed=sum(point.metric == PRIMARY for point in found),
        ),
        left_out=max(len(found) - MOST_ROWS, 0),
    )
    return Section("numbers", "All numbers", body)


def _row(point: Point, *, several: bool) -> list[Cell]:
    cells = [
        Cell(point.task),
        Cell(words.arm_name(point.arm), style="v"),
        Cell(words.percent(point.fraction or 0), point.fraction or "", "n"),
        Cell(_training_set(point), max(point.images, default=""), "v"),
        Cell(words.metric_name(point.metric)),
        Cell(point.level),
        Cell(point.text, "" if point.estimate is None else point.estimate, "v"),
        Cell(_test_set(point), point.n_patients or "", "v"),
        Cell(str(point.repeats or words.DASH), point.repeats or "", "n"),
        Cell(point.limits, style="m" if point.limits else ""),
    ]
    return [cells[0], Cell(point.protocol), *cells[1:]] if several else cells


def _training_set(point: Point) -> str:
    if not point.patients:
        return words.DASH
    return f"{words.span(point.patients)} pat., {words.span(point.images)} img."


def _test_set(point: Point) -> str:
    if point.n_patients is None:
        return words.DASH
    rarest = "" if not point.n_positive_patients else f" ({point.n_positive_patients})"
    scored = f", {point.scored}".replace("images", "img.") if point.scored else ""
    return f"{point.n_patients:,} pat.{rarest}{scored}"
