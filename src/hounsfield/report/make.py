"""`report(folder, out)`: from stored results to a page, in seconds, without torch."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hounsfield import __version__
from hounsfield.errors import BusyError
from hounsfield.files import sweep, write_text
from hounsfield.judge.results import is_judged, judge
from hounsfield.lock import held
from hounsfield.report import html, words
from hounsfield.report.beside import BESIDE, write_beside
from hounsfield.report.html import Section
from hounsfield.report.parts import (
    curves,
    data,
    differences,
    drops,
    limits,
    mistakes,
    numbers,
    predictions,
    pretraining,
    protocol,
    provenance,
)
from hounsfield.report.parts.answer import answer
from hounsfield.report.study_folder import Study, read
from hounsfield.report.style import Style, file_style, page_style

PAGE = "report.html"
SECTIONS: tuple[Callable[[Study, Style], Section], ...] = (
    curves.section,
    differences.section,
    drops.section,
    numbers.section,
    pretraining.section,
    data.section,
    predictions.section,
    mistakes.section,
    protocol.section,
    provenance.section,
    limits.section,
)


@dataclass(frozen=True)
class Report:
    """A report that was written: the page, and the sentences at its top."""

    page: Path
    answer: tuple[str, ...]


def report(folder: Path, out: Path | None = None) -> Report:
    """Write page, figures, tables and methods of a study into `out`.

    Args:
        folder: What `hounsfield study` wrote, finished or not.
        out: Where all goes; `folder/report` without it.

    Raises:
        InputError: `folder` is not a study.
        BusyError: Another process writes `out`.
        DiskError: `out` cannot be written.
    """
    out = out or folder / "report"
    with held(out):
        for name in (PAGE, *BESIDE):
            sweep(out, name)
        study = _judged(folder)
        style = file_style(study.arms)
        figures = [figure for make in SECTIONS for figure in make(study, style).figures]
        write_beside(study, figures, out)
        write_text(out / PAGE, page_of(study))  # last: a page is there only when all else is
    return Report(out / PAGE, tuple(answer(study)))


def _judged(folder: Path) -> Study:
    """The study with the numbers of its cells as they are now.

    They are also written into its folder, unless a study is at work there: it judges in the end.
    """
    if is_judged(folder) or not any(folder.glob("cells/*/cell.json")):
        return read(folder)
    with suppress(BusyError), held(folder):
        judge(folder)
        return read(folder)
    with TemporaryDirectory() as place:
        judge(folder, Path(place))
        return read(folder, Path(place))


def page_of(study: Study) -> str:
    """The page of a study as one file's text."""
    style = page_style(study.arms)
    sizes = [
        words.plural(len(study.tasks), "task"),
        words.plural(len(study.arms), "arm"),
        words.plural(len(study.fractions), "fraction"),
        words.plural(study.repeats, "repeat"),
        f"{len(study.cells):,} of {words.plural(study.planned_cells, 'cell')}",
    ]
    return html.page(
        title=str(study.facts.get("name") or study.folder.resolve().name),
        subtitle=", ".join(sizes) + ".",
        answer=answer(study),
        limits=limits.limits(study),
        sections=[make(study, style) for make in SECTIONS],
        arms=study.arms,
        footer=f"Made by hounsfield {__version__} from stored results. Intervals are 95 % and "
        "count both test patients and trainings.",
    )
