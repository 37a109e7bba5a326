"""Whose slices these are, where they lie and which labels they have, by rows of parts.

The rows may be those of parts that were converted, or those that conversion will give as far as
names and headers tell: what is wrong with labels is said before the long work.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl

from hounsfield.data.convert import Job, Unit, rows_of
from hounsfield.data.keys import Keys
from hounsfield.data.labels import Labels, join
from hounsfield.data.series import Header, spots_of
from hounsfield.data.split import PARTS
from hounsfield.data.store import COLUMNS, Store
from hounsfield.data.volume import Units, Volume
from hounsfield.errors import LeakError
from hounsfield.wording import plural

PART_COLUMNS: Final[Mapping[str, type[pl.DataType]]] = {
    "file": pl.String,
    "patient": pl.String,
    "guess": pl.String,
    "study": pl.String,
    "series": pl.String,
    "number": pl.Int64,
    **{name: COLUMNS[name] for name in list(COLUMNS)[5:]},
}
"""The columns of a part's rows; `label NAME` columns follow."""
_LABEL = "label "


def labelled(
    slices: pl.DataFrame,
    labels: Labels | None,
    keys: Keys,
    rows_by_file: Mapping[str, int],
    *,
    class_folders: str | None,
) -> tuple[pl.DataFrame, tuple[int, ...]]:
    """`slices` with patients, ranks and labels, and the table's rows, from 1, that match nothing.

    Raises:
        LabelError: No row of the table matches any slice.
    """
    row = [rows_by_file.get(file) for file in slices["file"]]
    slices = slices.with_columns(pl.Series("row", row, dtype=pl.Int64))
    slices = _with_patients(slices, labels, keys)
    if class_folders is not None:
        first = pl.col("file").str.split("/").list
        slices = slices.with_columns(
            pl.when(first.len() > 1).then(first.first()).alias(class_folders)
        )
    slices = slices.rename({name: name.removeprefix(_LABEL) for name in slices.columns})
    slices = slices.with_columns(rank().alias("z"))
    if labels is None or not len(slices):
        return slices, ()
    if labels.has_split:
        slices = slices.drop("split")
    slices, missed = join(labels, slices, keys)
    return slices, tuple(missed["row"] + 1)


def check_labels(
    units: Sequence[Unit],
    job: Job,
    labels: Labels,
    rows_by_file: Mapping[str, int],
    *,
    before: Store | None,
) -> None:
    """Refuse labels that cannot fit what `units` hold, by names and headers alone.

    MedMNIST archives name no slice before they are read, and other files than DICOM no position;
    where that matters, nothing is refused yet.

    Raises:
        LabelError: No row of the table can match any slice.
        LeakError: A patient is in two splits.
    """
    kinds = {unit.kind for unit in units}
    by_name = len(labels.form) == 1 and "medmnist" not in kinds
    if not units or not (by_name or kinds == {"dicom"}):
        return
    outlines = [_outline(unit, copies=labels.form == ("file",)) for unit in units]
    rows = [row for one in outlines for row in rows_of(job, one, one.spacing_mm[1:])]
    slices, _ = labelled(
        pl.DataFrame(rows, schema=PART_COLUMNS), labels, job.keys, rows_by_file, class_folders=None
    )
    sides = slices.select("patient", "split")
    if before is not None:
        sides = pl.concat([before.index.select("patient", "split"), sides])
    check_splits(sides)


def check_splits(index: pl.DataFrame) -> None:
    """Refuse a patient on two sides, by the columns patient and split.

    Raises:
        LeakError: There is one.
    """
    sides = (
        index.filter(pl.col("split").is_in(PARTS))
        .group_by("patient")
        .agg(pl.col("split").unique().sort())
        .filter(pl.col("split").list.len() > 1)
        .sort("patient")
    )
    if len(sides):
        raise LeakError(
            f"{plural(len(sides), 'patient')} in two splits, for example {sides['patient'][0]} in "
            f"{' and '.join(sides['split'][0])}. Give every patient one split."
        )


def rank() -> pl.Expr:
    """The place of a slice in its series from the feet; in the order of names where unknown."""
    by_position = pl.col("z_mm").rank("ordinal").over("patient", "series")
    by_order = pl.int_range(1, pl.len() + 1).over("patient", "series")
    return (pl.coalesce(by_position, by_order) - 1).cast(pl.Int32)


def _with_patients(slices: pl.DataFrame, labels: Labels | None, keys: Keys) -> pl.DataFrame:
    """Every slice with its patient: told by the source, by the label table, by its neighbours.

    Files of one folder are of one patient where nothing else is known, so the files that the
    table leaves out belong to the patient of those that it names, if that is one.
    """
    told = pl.lit(None, pl.String)
    if labels is not None and "patient" in labels.table.columns and labels.form == ("file",):
        named = labels.table.select(
            "row", pl.col("patient").map_elements(
                lambda one: keys("patient", one), return_dtype=pl.String
            ).alias("told"),
        )  # fmt: skip
        slices = slices.join(named, on="row", how="left", maintain_order="left")
        told = pl.col("told")
    neighbour = told.drop_nulls().first().over("guess")
    one_neighbour = told.drop_nulls().n_unique().over("guess") == 1
    slices = slices.with_columns(
        pl.coalesce(
            pl.col("patient"), told, pl.when(one_neighbour).then(neighbour), pl.col("guess")
        ).alias("patient")
    )
    return slices.drop("told", strict=False)


def _outline(unit: Unit, *, copies: bool) -> Volume:
    """The volume of a unit without its pixels, if all of it can be read.

    Args:
        unit: Of any kind but MedMNIST.
        copies: Whether slices at the position of another, which will not go in, are in it too.
    """
    headers = [one for one in unit.items if isinstance(one, Header)]
    if not headers:
        files = [entry.name for entry in unit.entries]
        pictures = unit.kind == "image"
        return _without_pixels(
            files,
            units="display" if pictures else "hu",
            series=files[0].rpartition("/")[0] if pictures else files[0],
        )
    shown = [one for spot in spots_of(headers) for one in (spot if copies else spot[:1])]
    return _without_pixels(
        [one.entry.name for one in shown],
        patient=headers[0].patient,
        study=headers[0].study,
        series=headers[0].series,
        z_mm=[one.along_mm for one in shown],
        numbers=[one.number for one in shown],
    )


def _without_pixels(
    files: Sequence[str],
    *,
    series: str,
    units: Units = "hu",
    patient: str = "",
    study: str = "",
    z_mm: Sequence[float] = (),
    numbers: Sequence[int] = (),
) -> Volume:
    count = len(files)
    step = float(np.median(np.diff(z_mm))) if len(z_mm) > 1 else np.nan
    return Volume(
        voxels=np.zeros((count, 0, 0), np.int16),
        units=units,
        spacing_mm=(step, np.nan, np.nan),
        z_mm=np.array(z_mm or [np.nan] * count),
        patient=patient,
        study=study,
        series=series,
        files=tuple(files),
        sources=("",) * count,
        numbers=tuple(numbers or range(1, count + 1)),
    )
