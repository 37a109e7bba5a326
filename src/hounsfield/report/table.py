"""The result table for the terminal: a table a task, every number with its interval."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hounsfield.report import words
from hounsfield.report.points import PRIMARY, Point, judged_tasks, levels, points
from hounsfield.report.study_folder import Study

UNFINISHED = "*"  # the training loss of a cell had not clearly fallen
MIND = "~"  # the judge says what limits the number


def show(study: Study, console: Console | None = None) -> None:
    """Print the result table on standard output."""
    (console or Console()).print(table(study))


def table(study: Study, *, metric: str = PRIMARY) -> RenderableType:
    """A rich table for each task, protocol and level that has numbers, with notes below each."""
    parts = [
        part
        for task in judged_tasks(study)
        for protocol in study.protocols
        for level in levels(study, task)
        for part in _one(
            study, points(study, task=task, protocol=protocol, level=level, metric=metric)
        )
    ]
    return Group(*(parts or [Text("There are no numbers yet.")]))


def _one(study: Study, found: Sequence[Point]) -> Iterator[RenderableType]:
    if not found:
        return
    first = found[0]
    fractions = sorted({point.fraction for point in found if point.fraction}, reverse=True)
    heads = [_head([point for point in found if point.fraction == part]) for part in fractions]
    by_place = {(point.arm, point.fraction): point for point in found}
    grid = Table(
        title=f"{escape(first.task)}: {words.metric_name(first.metric)} by {first.level}, "
        f"protocol {escape(first.protocol)}, with 95 % intervals",
        caption=f"Judged on {first.judged_on}.",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
    )
    grid.add_column("arm")
    for part, head in zip(fractions, heads, strict=True):
        grid.add_column(f"{words.percent(part)}\n{head}", justify="left")
    for arm in study.arms:
        cells = [by_place.get((arm, part)) for part in fractions]
        if any(cells):
            shown = [_cell(point) for point in cells]
            grid.add_row(escape(words.arm_name(arm)), *shown)
    yield grid
    yield from _notes(found)


def _head(found: Sequence[Point]) -> str:
    patients = [count for point in found for count in point.patients]
    images = [count for point in found for count in point.images]
    if not patients:
        return ""
    return f"{words.spanned(patients, 'patient')}\n{words.spanned(images, 'image')}"


def _cell(point: Point | None) -> str:
    if point is None:
        return "not run"
    marks = (UNFINISHED if point.unfinished else "") + (MIND if _flags([point]) else "")
    if point.low is None and point.reason.startswith("not enough patients"):
        return f"{words.number(point.estimate)}{marks}\nnot enough patients"
    return escape(point.text.replace(words.HARD, " ")).replace(" ", "\n", 1) + marks


def _notes(found: Sequence[Point]) -> Iterator[RenderableType]:
    unfinished = sum(point.unfinished for point in found)
    if unfinished:
        cells = words.plural(unfinished, "cell")
        yield Text(f"{UNFINISHED} unfinished: the training loss of {cells} did not clearly fall.")
    flags = _flags(found)
    if flags:
        yield Text(f"{MIND} {', '.join(flags)}: read the interval with care.")
    for reason in sorted({point.reason for point in found if point.reason}):
        yield Text(f"No interval: {reason}.")
    lost = sum(point.failed + point.absent for point in found)
    if lost:
        yield Text(f"{words.plural(lost, 'cell')} failed or did not run; the rest is judged.")
    yield Text()


def _flags(found: Sequence[Point]) -> list[str]:
    """What the judge says of these numbers, but for unfinished cells, which have their own mark."""
    told = {flag for point in found for flag in point.flag.split("; ")}
    return sorted(flag for flag in told if flag and "unfinished" not in flag)
