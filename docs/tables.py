"""The tables of docs/results.md, made from what the studies kept: none of their numbers is typed.

A table stands between `<!-- table: STUDY WHAT -->` and `<!-- end -->`; STUDY is a folder of
examples/first_study/results, WHAT a name in `TABLES`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from hounsfield.report import words

KEPT = Path(__file__).parents[1] / "examples" / "first_study" / "results"
PLACE = re.compile(r"(<!-- table: (\w+) ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with its tables as the kept numbers have them."""

    def made(place: re.Match[str]) -> str:
        return f"{place[1]}\n{TABLES[place[3]](KEPT / place[2])}\n{place[4]}"

    return PLACE.sub(made, page)


def values(kept: Path, kind: str, by: str) -> str:
    """An arm a row, a fraction a column: AUC, or its drop, with its interval."""
    rows = pl.read_csv(kept / "numbers.csv").filter(kind=kind, metric="auc", level=by)
    fractions = rows["fraction"].unique().sort(descending=True).to_list()
    signed = kind != "level"
    cells = {
        (row["arm"], row["fraction"]): _interval(row, signed=signed)
        for row in rows.iter_rows(named=True)
    }
    arms = rows["arm"].unique(maintain_order=True)
    to = "to " if signed else ""
    return _table(
        ["arm", *(f"{to}{words.percent(part)}" for part in fractions)],
        ([words.arm_name(arm), *(cells[arm, part] for part in fractions)] for arm in arms),
    )


def contrasts(kept: Path, by: str) -> str:
    """A pair of arms a row: how far apart with the fewest labels, and who loses more."""
    rows = pl.read_csv(kept / "numbers.csv").filter(
        pl.col("fraction") == pl.col("fraction").min(), metric="auc", level=by
    )
    apart = {_pair(row): row for row in rows.filter(kind="difference").iter_rows(named=True)}
    drops = {_pair(row): row for row in rows.filter(kind="drop_difference").iter_rows(named=True)}
    least = words.percent(rows["fraction"][0])
    heads = [
        "",
        f"difference at {least}",
        "p (Holm)",
        f"difference of drops to {least}",
        "could be seen",
    ]
    made = (
        [
            f"{words.arm_name(pair[0])} {words.MINUS} {words.arm_name(pair[1])}",
            _interval(apart[pair], signed=True),
            words.p_value(apart[pair]["p_holm"]),
            _interval(drops[pair], signed=True),
            words.number(apart[pair]["smallest_effect"]),
        ]
        for pair in apart
    )
    return _table(heads, made)


def cells(kept: Path) -> str:
    """An arm a row: its cells, the unfinished ones by fraction, best rates at the grid's edge."""
    rows = pl.read_csv(kept / "cells.csv")
    fractions = rows["fraction"].unique().sort(descending=True).to_list()
    heads = ["arm", "cells", *(f"unfinished at {words.percent(part)}" for part in fractions)]
    made = []
    for (arm,), here in rows.group_by("arm", maintain_order=True):
        unfinished = [here.filter(fraction=part, status="unfinished").height for part in fractions]
        made.append([words.arm_name(str(arm)), *map(str, (here.height, *unfinished)), _edge(here)])
    if any(row[-1] for row in made):
        return _table([*heads, "best rate at the edge"], made)
    return _table(heads, [row[:-1] for row in made])


TABLES: Mapping[str, Callable[[Path], str]] = {
    "by slice": lambda kept: values(kept, "level", "slice"),
    "by patient": lambda kept: values(kept, "level", "patient"),
    "drops by slice": lambda kept: values(kept, "drop", "slice"),
    "contrasts by slice": lambda kept: contrasts(kept, "slice"),
    "contrasts by patient": lambda kept: contrasts(kept, "patient"),
    "cells": cells,
}


def _edge(arm: pl.DataFrame) -> str:
    """How many of an arm's cells that tried several rates found the best at the grid's edge."""
    tried = arm.filter(pl.col("trials") > 1, pl.col("lr").is_not_null())
    return f"{tried['lr_at_edge'].sum()} of {tried.height}" if tried.height else ""


def _pair(row: Mapping[str, str]) -> tuple[str, str]:
    return row["arm"], row["baseline"]


def _interval(row: Mapping[str, float], *, signed: bool = False) -> str:
    return words.interval(row["estimate"], row["low"], row["high"], signed=signed)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
