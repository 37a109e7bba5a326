"""Tables as LaTeX with booktabs and longtable; the signs of LaTeX in a study's names are text.

Names in other scripts than Latin need XeLaTeX or LuaLaTeX.
"""

from collections.abc import Iterator, Sequence

from hounsfield.report import words
from hounsfield.report.points import PRIMARY, Point, judged_tasks, levels, points
from hounsfield.report.study_folder import Study

_AGAIN = "\\endhead"  # what stands before it is set again on every page
_SIGNS = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\n": " ",
    words.MINUS: "$-$",
    words.DASH: "--",
    words.NARROW: r"\,",
    words.HARD: "~",
}


def text(plain: str) -> str:
    """`plain` so that LaTeX sets it as it is."""
    return "".join(_SIGNS.get(sign, sign) for sign in plain)


def wide(study: Study) -> str:
    """A table for the paper: an arm a row, a fraction a column, for each task and level."""
    return "\n".join(
        _wide(study, points(study, task=task, protocol=protocol, level=level, metric=PRIMARY))
        for task in judged_tasks(study)
        for protocol in study.protocols
        for level in levels(study, task)
    )


def long(study: Study, kind: str) -> str:
    """A row a number of a kind, of the primary metric, over as many pages as it takes.

    The CSV beside it holds every metric.
    """
    found = points(study, kind=kind, metric=PRIMARY)
    columns: dict[str, list[str]] = {
        "task": [point.task for point in found],
        "protocol": [point.protocol for point in found],
        "level": [point.level for point in found],
        "arm": [words.arm_name(point.arm) for point in found],
        "baseline": [words.arm_name(point.baseline or "") for point in found],
        "labels": [words.percent(point.fraction) if point.fraction else "" for point in found],
        f"{words.kind_name(kind, PRIMARY)} [95 % interval]": [point.text for point in found],
        "patients": [str(point.n_patients or "") for point in found],
        "repeats": [str(point.repeats or "") for point in found],
    }
    if len(study.protocols) == 1:
        del columns["protocol"]
    used = {head: cells for head, cells in columns.items() if any(cells)}
    body = list(zip(*used.values(), strict=True))
    return f"{{\\small\n{_rows('longtable', list(used), body, after_heads=_AGAIN)}}}\n"


def _wide(study: Study, found: Sequence[Point]) -> str:
    if not found:
        return ""
    fractions = sorted({point.fraction for point in found if point.fraction}, reverse=True)
    at = {(point.arm, point.fraction): point for point in found}
    body = [
        [words.arm_name(arm), *(at[arm, part].text if (arm, part) in at else words.DASH
                                for part in fractions)]
        for arm in study.arms
        if any((arm, part) in at for part in fractions)
    ]  # fmt: skip
    first = found[0]
    caption = (
        f"{words.metric_name(first.metric)} by {first.level} on {first.task}, with 95 % "
        f"intervals over patients and trainings; judged on {first.judged_on}."
    )
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{text(caption)}}}\n"
        f"{_rows('tabular', ['arm', *map(words.percent, fractions)], body)}\\end{{table}}\n"
    )


def _rows(
    kind: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, after_heads: str = ""
) -> str:
    def lines() -> Iterator[str]:
        yield f"\\begin{{{kind}}}{{{'l' * len(heads)}}}"
        yield "\\toprule"
        yield " & ".join(map(text, heads)) + r" \\"
        yield "\\midrule" + after_heads
        for row in rows:
            yield " & ".join(map(text, row)) + r" \\"
        yield "\\bottomrule"
        yield f"\\end{{{kind}}}"

    return "\n".join(lines()) + "\n"
