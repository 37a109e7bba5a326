"""Tables as LaTeX with booktabs; whatever a study's names hold, it compiles as text."""

from collections.abc import Iterator, Sequence

import polars as pl

from hounsfield.report import words
from hounsfield.report.points import PRIMARY, Point, judged_tasks, levels, points
from hounsfield.report.study_folder import Study

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


def long(table: pl.DataFrame, name: str) -> str:
    """A row a number, of the primary metric; the CSV beside it holds every metric."""
    rows = table.filter(pl.col("metric") == PRIMARY) if "metric" in table.columns else table
    keys = [
        key
        for key in ("task", "protocol", "level", "arm", "baseline", "fraction")
        if key in rows.columns
    ]
    body = [
        [*(_key(row[key]) for key in keys), _value(row, signed="difference" in name),
         str(row.get("n_patients", "")), str(row.get("repeats", ""))]
        for row in rows.iter_rows(named=True)
    ]  # fmt: skip
    heads = [*keys, f"{words.metric_name(PRIMARY)} [95 % interval]", "patients", "repeats"]
    return _tabular([*map(str, heads)], body)


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
        f"{_tabular(['arm', *map(words.percent, fractions)], body)}\\end{{table}}\n"
    )


def _tabular(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def lines() -> Iterator[str]:
        yield f"\\begin{{tabular}}{{{'l' * len(heads)}}}"
        yield "\\toprule"
        yield " & ".join(map(text, heads)) + r" \\"
        yield "\\midrule"
        for row in rows:
            yield " & ".join(map(text, row)) + r" \\"
        yield "\\bottomrule"
        yield "\\end{tabular}"

    return "\n".join(lines()) + "\n"


def _key(value: object) -> str:
    if isinstance(value, float):
        return words.percent(value)
    return "" if value is None else str(value)


def _value(row: dict[str, object], *, signed: bool) -> str:
    numbers = [row.get(name) for name in ("estimate", "low", "high")]
    estimate, low, high = (one if isinstance(one, float) else None for one in numbers)
    return words.interval(estimate, low, high, signed=signed)
