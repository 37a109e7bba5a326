"""From a study folder to its numbers: `results.parquet`, a row a number, and `verdicts.json`.

Cells that took no part are listed in `left_out.json`, with the reason for each, and `judged.json`,
written last, says of which cells all of this is.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from hounsfield import __version__
from hounsfield.files import read_object, write_json, write_parquet
from hounsfield.judge.answers import Answer, answers
from hounsfield.judge.declared import SCRATCH, Declared, Primary, declared
from hounsfield.judge.family import holm
from hounsfield.judge.scores import LeftOut, boards, read_cells, read_facts
from hounsfield.judge.verdicts import Verdict, verdicts
from hounsfield.progress import bar
from hounsfield.provenance import origin

WRITTEN = ("results.parquet", "verdicts.json", "left_out.json")
JUDGED = "judged.json"
RULE = 2  # of judging: raised when the same cells come to other numbers, so that they are made anew
COLUMNS: Mapping[str, Any] = {
    **dict.fromkeys(("kind", "task", "protocol", "level", "metric", "arm", "baseline"), pl.String),
    **dict.fromkeys(
        ("fraction", "estimate", "low", "high", "p", "p_holm", "df", "smallest_effect"), pl.Float64
    ),
    **dict.fromkeys(
        ("n_patients", "n_positive_patients", "n_images", "repeats", "folds"), pl.Int64
    ),
    **dict.fromkeys(("train_patients", "train_images"), pl.Float64),
    **dict.fromkeys(("flag", "reason"), pl.String),
}


@dataclass(frozen=True)
class Results:
    """A judged study.

    Attributes:
        table: A row a number, columns as in `COLUMNS`.
        verdicts: On the primary contrast, then on each hypothesis.
        left_out: Cells that took no part, and why.
    """

    table: pl.DataFrame
    verdicts: tuple[Verdict, ...]
    left_out: tuple[LeftOut, ...]


def judge(folder: Path, out: Path | None = None) -> Results:
    """The numbers of the study in `folder`; finished cells are enough.

    Args:
        folder: Of the study; the caller holds its lock where the numbers are written there.
        out: The folder where they are also written; the study's without it.

    Raises:
        DiskError: `out` is not writable.
        InputError: `folder` is not a study's.
        LeakError: A test patient stands in two folds.
    """
    judged = _inputs(folder)  # before anything is read: what changes meanwhile makes it stale
    facts = read_facts(folder)
    known = declared(facts)
    cells, left_out = read_cells(folder, facts, known)
    pairs = known.primary.pairs if known.primary else ()
    found: list[Answer] = []
    with bar("judging", total=len({cell.place[1:3] for cell in cells})) as progress:
        for board in boards(cells, known):
            found += answers(
                board, pairs=pairs, comparisons=_comparisons(known.primary), ruler=_ruler(known)
            )
            progress.advance()
    if known.primary is not None:
        found = _adjusted(found, known.primary)
    results = Results(
        table=pl.DataFrame([asdict(one) for one in found], schema=COLUMNS),
        verdicts=tuple(verdicts(found, known.primary)) if known.primary else (),
        left_out=tuple(left_out),
    )
    _write(out or folder, results, judged)
    return results


def is_judged(folder: Path) -> bool:
    """Whether the results in `folder` are of its plan and its cells, by the rule of now."""
    there = all((folder / name).is_file() for name in WRITTEN)
    return there and read_object(folder / JUDGED).get("inputs") == _inputs(folder)


def _inputs(folder: Path) -> str:
    """A hash of all that the numbers come from: the plan, and every cell's facts and scores."""
    digest = hashlib.sha256(f"{__version__}\x1f{RULE}".encode())
    cells = [path for name in ("cell.json", "scores.parquet")
             for path in sorted(folder.glob(f"cells/*/{name}"))]  # fmt: skip
    for path in (folder / "study.json", *cells):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"\x1e{path.parent.name}/{path.name}\x1f{len(content)}\x1f".encode())
        digest.update(content)
    return digest.hexdigest()


def _ruler(known: Declared) -> str | None:
    """The arm whose labels the others save: without pre-training, else the primary baseline."""
    if SCRATCH in known.arms or known.primary is None:
        return SCRATCH
    return known.primary.baseline


def _comparisons(primary: Primary | None) -> Callable[[Answer], int]:
    """How many comparisons share the error rate of an answer."""

    def count(one: Answer) -> int:
        if primary is None or _family_of(one, primary) is None:
            return 1
        return len(primary.family if one.kind == "difference" else primary.hypotheses)

    return count


def _family_of(one: Answer, primary: Primary) -> tuple[str, str, str] | None:
    """The family that an answer belongs to; None for all that was not declared.

    There is one of differences, at the primary question's place, and one of the hypotheses'
    differences of drops in every task and protocol.
    """
    if (one.level, one.metric, one.fraction) != (primary.level, primary.metric, primary.fraction):
        return None
    pair, place = (one.arm, one.baseline), (one.task, one.protocol)
    if one.kind == "difference" and pair in primary.family:
        return (one.kind, *place) if place == (primary.task, primary.protocol) else None
    if one.kind == "drop_difference" and pair in primary.hypotheses:
        return (one.kind, *place)
    return None


def _adjusted(found: Sequence[Answer], primary: Primary) -> list[Answer]:
    """The answers with Holm's p within each family; a declared comparison without p counts as 1."""
    families: dict[tuple[str, str, str], list[int]] = {}
    for place, one in enumerate(found):
        family = _family_of(one, primary)
        if family is not None:
            families.setdefault(family, []).append(place)
    adjusted = list(found)
    for family, members in families.items():
        declared_ones = primary.family if family[0] == "difference" else primary.hypotheses
        absent = [None] * (len(declared_ones) - len(members))
        values = holm([*(found[place].p for place in members), *absent])
        for place, value in zip(members, values, strict=False):
            adjusted[place] = replace(found[place], p_holm=value)
    return adjusted


def _write(folder: Path, results: Results, judged: str) -> None:
    table, told, left_out = (folder / name for name in WRITTEN)
    write_parquet(table, results.table)
    write_json(told, [asdict(verdict) for verdict in results.verdicts])
    write_json(left_out, [asdict(cell) for cell in results.left_out])
    write_json(folder / JUDGED, {"inputs": judged, **origin()})
