"""Labels from a table, joined to slices by file, patient, series and position.

The table's own columns say how it is joined, the first of `FORMS` whose columns are all there.
Every other column is a label; `split` is the split. An empty cell is no label.

Files and patients may bear names of people, so messages tell rows by their number, the first below
the header being 1, and other cells by their form: `Smith-07` is `aaaaa-00`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import polars as pl

from hounsfield.data.keys import Keys
from hounsfield.data.split import PARTS
from hounsfield.data.store import COLUMNS
from hounsfield.errors import LabelError, LeakError, first_line
from hounsfield.wording import plural

FORMS: Final = (
    ("file",),
    ("series", "z_mm"),
    ("series", "z"),
    ("patient", "z_mm"),
    ("patient", "z"),
    ("patient", "slice"),
    ("series",),
    ("patient",),
)
"""How a table may say which slices it means; `z` counts from 0 at the feet, `slice` is the
source's own number."""

MAX_BYTES, MAX_ROWS = 2**30, 20_000_000  # a table of every slice of the largest archives has room
SHOWN = 3  # examples in a message
_POSITIONS = ("z_mm", "z", "slice")


@dataclass(frozen=True)
class Labels:
    """A label table that was read.

    Attributes:
        path: Where it lies.
        form: The columns by which it is joined.
        table: `row` (its number), the columns of `form` as text, `patient` if there, labels.
        names: The label columns.
        has_split: Whether it brings a split.
    """

    path: Path
    form: tuple[str, ...]
    table: pl.DataFrame
    names: tuple[str, ...]
    has_split: bool

    @property
    def is_of_whole(self) -> bool:
        """Whether a row labels all slices of a patient or of a series alike."""
        return self.form in (("series",), ("patient",))


def read_labels(path: Path) -> Labels:
    """The label table in a CSV or Parquet file.

    Raises:
        LabelError: It cannot be read, has no known form, holds no label, or names a slice twice.
        LeakError: A patient is in two splits.
    """
    text = _read_text(path)
    form = next((form for form in FORMS if set(form) <= set(text.columns)), None)
    if form is None:
        allowed = "; ".join(" + ".join(form) for form in FORMS)
        raise LabelError(
            f"{path} has the columns {', '.join(text.columns)}; slices are named by one of: "
            f"{allowed}. Rename its columns."
        )
    known = {*form, "patient", "study", "series", *_POSITIONS, "split"}
    names = tuple(name for name in text.columns if name not in known)
    has_split = "split" in text.columns
    if not names and not has_split:
        raise LabelError(f"{path} has no label column beside {', '.join(text.columns)}. Add one.")
    clash = [name for name in names if name in COLUMNS]
    if clash:
        raise LabelError(f"{path}: {', '.join(clash)} is a column of every store. Rename it.")
    _check_splits(path, text)
    if form == ("file",):
        text = text.with_columns(pl.col("file").map_elements(_as_path, return_dtype=pl.String))
    places = [  # 3 and 03 are one
        pl.coalesce(pl.col(name).cast(pl.Int64, strict=False).cast(pl.String), name)
        for name in form[1:]
    ]
    named = text.with_row_index("row", 1).drop_nulls(form).with_columns(places)
    twice = named.group_by(form, maintain_order=True).agg("row")
    twice = twice.filter(pl.col("row").list.len() > 1)
    if len(twice):
        raise LabelError(
            f"{path} names one {' + '.join(form)} more than once, in the "
            f"{rows_named(twice['row'][0].to_list())}. Keep one row each."
        )
    keep = list(dict.fromkeys([*form, *(["patient"] if "patient" in text.columns else [])]))
    table = text.select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
        *keep,
        *(["split"] if has_split else []),
        *(typed(text[name]) for name in names),
    )
    table = table.filter(~pl.all_horizontal(pl.exclude("row").is_null()))  # as Excel appends them
    return Labels(path, form, table, names, has_split)


def typed(column: pl.Series) -> pl.Series:
    """A column of text as whole numbers, else numbers, else text; empty cells are null."""
    column = column.str.strip_chars().replace("", None)
    for kind in (pl.Int64, pl.Float64):
        numbers = column.cast(kind, strict=False)
        if numbers.null_count() == column.null_count():
            return numbers
    return column


def match_files(labels: Labels, files: dict[str, Path]) -> dict[str, int]:
    """For each file name in the store its row of the table, for a table that is joined by file.

    A cell matches a file whose path ends with it; the longest such cell wins.

    Args:
        labels: A table with the form `("file",)`.
        files: Name in the source and path on the disk (for a zip's member, below the zip's path).

    Raises:
        LabelError: A cell fits several files, or none of the cells fits any.
    """
    rows = dict(zip(labels.table["file"], labels.table["row"], strict=True))
    rows.pop(None, None)
    found: dict[str, int] = {}
    takers: dict[int, list[str]] = defaultdict(list)
    for name, path in files.items():
        parts = path.as_posix().strip("/").split("/")
        for start in range(len(parts)):
            row = rows.get("/".join(parts[start:]))
            if row is not None:
                found[name] = row
                takers[row].append(name)
                break
    for row, names in takers.items():
        if len(names) > 1:
            raise LabelError(
                f"{labels.path}: {rows_named([row + 1])} fits {plural(len(names), 'file')} of "
                "the sources. Give more of the path."
            )
    if not found:
        raise LabelError(
            f"{labels.path} matches no file: it names files like {', '.join(_forms(rows))}, the "
            f"sources hold files like {', '.join(_forms(files))} (a is a letter, 0 a digit). Check "
            "the column file."
        )
    return found


def join(labels: Labels, slices: pl.DataFrame, keys: Keys) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`slices` with the split and the label columns, and the rows that match nothing.

    Args:
        labels: The table.
        slices: Columns patient, series (as the store has them), z, z_mm, spacing_z_mm, number,
            and `row`, which is filled already where the table is joined by file.
        keys: What made the store's identities.

    Raises:
        LabelError: No row matches any slice.
    """
    values = [*(["split"] if labels.has_split else []), *labels.names]
    table = labels.table
    if labels.form != ("file",):
        slices = _find_rows(labels, slices, keys)
    joined = slices.join(table.select("row", *values), on="row", how="left", maintain_order="left")
    missed = table.filter(~pl.col("row").is_in(slices["row"].drop_nulls().to_list()))
    if len(missed) == len(table):
        example = " + ".join(_form(str(table[name][0])) for name in labels.form)
        raise LabelError(
            f"{labels.path} matches no slice by {' + '.join(labels.form)} (its first row is like "
            f"{example}; a is a letter, 0 a digit). Check the identities, whose capitals count, or "
            "--keep-ids to see them in the store."
        )
    return joined, missed


def rows_named(rows: Sequence[int]) -> str:
    """Rows of a table for a message: "row 7", "rows 1, 2, 5 ..."."""
    shown = ", ".join(map(str, rows[:SHOWN])) + (" ..." if len(rows) > SHOWN else "")
    return f"row{'s' if len(rows) > 1 else ''} {shown}"


def _find_rows(labels: Labels, slices: pl.DataFrame, keys: Keys) -> pl.DataFrame:
    """`slices` with the column `row`: which row of the table each belongs to."""
    identity, *position = labels.form
    slices = slices.drop("row")
    table = labels.table.with_columns(
        pl.col(identity).map_elements(lambda one: keys(identity, one), return_dtype=pl.String)
    )
    if not position:
        return slices.join(table.select("row", identity), on=identity, how="left",
                           maintain_order="left")  # fmt: skip
    (place,) = position
    if place != "z_mm":
        ours = "number" if place == "slice" else "z"
        table = table.select(
            "row", identity, pl.col(place).cast(pl.Int64, strict=False).alias(ours)
        )
        slices = slices.with_columns(pl.col(ours).cast(pl.Int64))
        return slices.join(table, on=[identity, ours], how="left", maintain_order="left")
    # The nearest slice, if it is nearer than half the distance between slices.
    wanted = table.select("row", identity, pl.col("z_mm").cast(pl.Float64, strict=False))
    near = (
        slices.with_row_index("at")
        .join(wanted, on=identity, suffix="_wanted")
        .with_columns((pl.col("z_mm") - pl.col("z_mm_wanted")).abs().alias("off"))
        .filter(pl.col("off") <= pl.col("spacing_z_mm").fill_nan(None).fill_null(1.0).abs() / 2)
        .sort("off", "at")  # of two that are as near, the first
    )
    best = near.unique("row", keep="first", maintain_order=True).unique("at", keep="first")
    return (
        slices.with_row_index("at")
        .join(best.select("at", "row"), on="at", how="left", maintain_order="left")
        .drop("at")
    )


def _read_text(path: Path) -> pl.DataFrame:
    """Every cell as text, so that the patient 050 does not become 50."""
    try:
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if path.stat().st_size > MAX_BYTES:
            raise LabelError(f"{path} has more than {MAX_BYTES} bytes. Is it the right file?")
        if is_parquet:
            rows = pl.scan_parquet(path).select(pl.len()).collect().item()
            if rows > MAX_ROWS:
                raise LabelError(
                    f"{path} unpacks to {plural(rows, 'row')}; at most {MAX_ROWS:,} are read. Is "
                    "it the right file?"
                )
            table = pl.read_parquet(path).cast(pl.String)
        else:
            table = _read_csv(path)
        table = table.rename({name: name.strip() for name in table.columns})
    except FileNotFoundError:
        raise LabelError(f"there is no label file at {path}. Give a CSV or Parquet file.") from None
    except UnicodeDecodeError:
        raise LabelError(f"{path} is not UTF-8. Save it as CSV in UTF-8.") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LabelError(f"{path} cannot be read as a table: {first_line(error)}.") from None
    if not len(table):
        raise LabelError(f"{path} has no rows.")
    blank = pl.all().str.strip_chars() == ""
    return table.select(pl.when(~blank).then(pl.all()))


def _read_csv(path: Path) -> pl.DataFrame:
    """Cells parted by commas, or as Excel does where the comma is decimal, or by tabs."""
    raw = path.read_bytes()
    header = raw.decode().partition("\n")[0]
    separator = max(",;\t", key=header.count)
    table = pl.read_csv(raw, infer_schema=False, separator=separator)
    if separator == ",":
        return table
    values = pl.exclude("file", "series", "patient")
    return table.with_columns(values.str.replace(r"^\s*([+-]?\d+),(\d+)\s*$", "$1.$2"))


def _check_splits(path: Path, text: pl.DataFrame) -> None:
    if "split" not in text.columns:
        return
    odd = text.with_row_index("row", 1).filter(~pl.col("split").is_in(PARTS))
    if len(odd):
        raise LabelError(
            f"{path}: the split is like {_form(odd['split'][0])} in the "
            f"{rows_named(odd['row'].to_list())} (a is a letter, 0 a digit); give "
            f"{', '.join(PARTS)}, or nothing."
        )
    if "patient" not in text.columns:
        return
    sides = (
        text.with_row_index("row", 1)
        .filter(pl.col("split").is_in(PARTS), pl.col("patient").is_not_null())
        .group_by("patient", "split", maintain_order=True)
        .agg(pl.col("row").first())
        .group_by("patient", maintain_order=True)
        .agg("split", "row")
    )
    torn = sides.filter(pl.col("split").list.len() > 1)
    if len(torn):
        raise LeakError(
            f"{path}: {plural(len(torn), 'patient')} in two splits, for example the one of "
            f"{rows_named(torn['row'][0].to_list())} in {' and '.join(torn['split'][0])}. Give "
            "every patient one split."
        )


def _as_path(cell: str) -> str:
    """A file's name as this program writes names, so that one file has one name."""
    return PurePosixPath(cell.replace("\\", "/")).as_posix().lstrip("/")


def _forms(names: Iterable[str]) -> list[str]:
    """The first few different forms of many names."""
    return list(dict.fromkeys(map(_form, names)))[:SHOWN]


def _form(name: str) -> str:
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "0", name))
