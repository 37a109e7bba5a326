"""The store from its parts: copies dropped, patients and labels joined, written whole."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hounsfield.data.convert import images_of
from hounsfield.data.identify import PART_COLUMNS, check_splits, labelled, rank
from hounsfield.data.keys import Keys
from hounsfield.data.labels import Labels
from hounsfield.data.refusal import Refusal
from hounsfield.data.refused import names, table, write_names
from hounsfield.data.resample import Shape
from hounsfield.data.series import SAME_MM
from hounsfield.data.store import COLUMNS, REFUSED, Store
from hounsfield.data.store_writer import StoreWriter
from hounsfield.errors import InputError
from hounsfield.files import disk_errors, folder_whole
from hounsfield.progress import bar
from hounsfield.provenance import commit
from hounsfield.wording import plural

COUNTED: Final = ("files", "read", "skipped", "duplicate", "refused")
_SHOWN = 5
_AT_ONCE = 256  # slices in memory on their way from a part to the store


@dataclass(frozen=True)
class Flow:
    """What became of the sources.

    Attributes:
        files: All that were found; each is one of the next four.
        read: Gave at least one slice that is new.
        skipped, duplicate, refused: Did not.
        slices, series, patients: What the store holds now.
        new: Slices that this ingest added.
        labelled: Slices of the store with a value in any label column.
        labels_by: Whose slices, all of them, a row of the label table labels: a patient's, a
            series' or a file's; empty where it labels slices.
        unmatched: Rows of the label table that match no slice; 1 is the first below the header.
        notes: What is odd about series that went in.
        refusals: Every file that did not go in, and every frame.
        listing: The table that has these by name; beside a key it is there before the store is.
    """

    files: int
    read: int
    skipped: int
    duplicate: int
    refused: int
    slices: int
    series: int
    patients: int
    new: int
    labelled: int
    labels_by: str
    unmatched: tuple[int, ...]
    notes: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    listing: Path


def assemble(
    out: Path,
    parts: Sequence[Path],
    refusals: Sequence[Refusal],
    *,
    before: Store | None,
    shape: Shape,
    keys: Keys,
    labels: Labels | None,
    rows_by_file: Mapping[str, int],
    class_folders: str | None,
    listing: Path,
) -> Flow:
    """Write the store `out`, or the successor of `before`, from `parts`; returns what became.

    Raises:
        InputError: There is no slice at all, or the labels do not fit.
        DiskError: The disk is full or not writable; `out` is as it was.
    """
    slices, told, notes = _gather(parts)
    slices, copies = _without_copies(slices, before)
    refusals = [*refusals, *told, *copies]
    if not len(slices) and before is None:
        raise _nothing(refusals)
    unnamed = slices["patient"].is_null()
    slices, unmatched = labelled(slices, labels, keys, rows_by_file, class_folders=class_folders)
    notes = [*_guessed(slices.filter(unnamed)), *notes]
    slices = slices if before is None else _apart(slices, before.index, keys)
    index = _index(slices, before)
    check_splits(index)
    # A patient's slices without a label stand on the side of those with one.
    index = index.with_columns(
        pl.coalesce("split", pl.col("split").drop_nulls().first().over("patient")).alias("split")
    )
    refused = sorted(set(refusals), key=lambda one: (one.file, one.reason))
    flow = _flow(slices, index, refused, notes, labels, unmatched, listing)
    if keys.key is not None and refused:
        write_names(listing, names(refused, keys))
    if before is None or len(slices):
        _write(
            out,
            index,
            _images(parts, slices, shape),
            flow,
            before,
            shape,
            keys,
        )
    return flow


def _gather(parts: Sequence[Path]) -> tuple[pl.DataFrame, list[Refusal], list[str]]:
    """The rows of all parts with `part` and `place`, the refusals and the notes."""
    tables = [pl.DataFrame(schema={**PART_COLUMNS, "part": pl.Int64, "place": pl.Int64})]
    refusals: list[Refusal] = []
    notes: list[str] = []
    for number, part in enumerate(parts):
        content = json.loads(part.with_suffix(".json").read_bytes())
        refusals += [Refusal(**one) for one in content["refused"]]
        notes += content["notes"]
        if content["slices"]:
            table = pl.DataFrame(content["rows"], schema_overrides=PART_COLUMNS)
            tables.append(
                table.with_columns(
                    pl.lit(number, pl.Int64).alias("part"),
                    pl.int_range(pl.len(), dtype=pl.Int64).alias("place"),
                )
            )
    rows = pl.concat(tables, how="diagonal_relaxed")
    # Pictures have no number; they are counted here, for a folder of many is several parts.
    counted = pl.int_range(1, pl.len() + 1).over("series")
    return rows.with_columns(pl.coalesce("number", counted)), refusals, notes


def _without_copies(
    slices: pl.DataFrame, before: Store | None
) -> tuple[pl.DataFrame, list[Refusal]]:
    """The slices whose source is neither in the store nor earlier among them; the others' refusals.

    A file is a copy if all of its slices are.
    """
    known = [] if before is None else before.index["source"].to_list()
    there = pl.col("source").is_in(known)
    again = ~pl.col("source").is_first_distinct()
    marked = slices.with_columns(there.alias("there"), again.alias("again"))
    fresh = marked.filter(~pl.col("there") & ~pl.col("again")).drop("there", "again")
    gone = marked.filter(pl.col("there") | pl.col("again"))
    first = dict(zip(fresh["source"], fresh["file"], strict=True))
    refusals = [
        Refusal(file, "duplicate", "in the store already")
        if old
        else Refusal(file, "duplicate", "a copy of another", first[source])
        for file, old, source in gone.select("file", "there", "source").unique().rows()
    ]
    return fresh, refusals


def _apart(slices: pl.DataFrame, before: pl.DataFrame, keys: Keys) -> pl.DataFrame:
    """`slices`; volumes of a series in the store that they do not continue have names of their own.

    One ingest tells the volumes of a series apart by their headers, which the store does not keep.
    """
    known = before.filter(pl.col("series").is_in(slices["series"].to_list()))
    there = known.partition_by("series", as_dict=True)
    taken = {*before["series"], *slices["series"]}
    names: list[tuple[object, ...]] = []
    for (part, series), volume in slices.group_by("part", "series", maintain_order=True):
        if (series,) in there and not _continues(volume, there[series,]):
            tries = (keys("series", f"{series}#{number}") for number in count(2))
            names.append((part, series, next(name for name in tries if name not in taken)))
            taken.add(names[-1][-1])
    named = pl.DataFrame(
        names, schema={"part": pl.Int64, "series": pl.String, "name": pl.String}, orient="row"
    )
    slices = slices.join(named, on=["part", "series"], how="left", maintain_order="left")
    return slices.with_columns(pl.coalesce("name", "series").alias("series")).drop("name")


def _continues(volume: pl.DataFrame, earlier: pl.DataFrame) -> bool:
    """Whether slices share kernel and pixels with earlier ones, and no position."""
    kind = ("kernel", "spacing_y_mm", "spacing_x_mm")
    if not set(volume.select(kind).rows()) <= set(earlier.select(kind).rows()):
        return False
    new, old = (one["z_mm"].drop_nulls().to_numpy() for one in (volume, earlier))
    return not bool((np.abs(new[:, None] - old) < SAME_MM).any())


def _index(slices: pl.DataFrame, before: Store | None) -> pl.DataFrame:
    names = [
        name for name in slices.columns if name not in {*PART_COLUMNS, "part", "place", "row", "z"}
    ]
    index = slices.select([name for name in COLUMNS if name in slices.columns] + names)
    if before is None:
        return index
    return pl.concat([before.index, index], how="diagonal_relaxed").with_columns(rank().alias("z"))


def _flow(
    slices: pl.DataFrame,
    index: pl.DataFrame,
    refusals: Sequence[Refusal],
    notes: Sequence[str],
    table: Labels | None,
    unmatched: tuple[int, ...],
    listing: Path,
) -> Flow:
    read = set(slices["file"])
    lost = {one.file: one.status for one in refusals if one.file not in read}
    counts = Counter(lost.values())
    labels = [name for name in index.columns if name not in COLUMNS]
    return Flow(
        files=len(read) + len(lost),
        read=len(read),
        skipped=counts["skipped"],
        duplicate=counts["duplicate"],
        refused=counts["refused"],
        slices=len(index),
        series=index["series"].n_unique(),
        patients=index["patient"].n_unique(),
        new=len(slices),
        labelled=_labelled(index.select(labels)),
        labels_by=_labels_by(slices, table),
        unmatched=unmatched,
        notes=tuple(notes),
        refusals=tuple(refusals),
        listing=listing,
    )


def _guessed(unnamed: pl.DataFrame) -> Iterator[str]:
    """A note where patients are guessed: one person's studies then count as several patients."""
    found = unnamed.filter(pl.col("patient") == pl.col("guess"))
    if len(found):
        yield (
            f"{plural(len(found), 'slice')} whose patient nothing names: "
            f"{plural(found['patient'].n_unique(), 'patient')} guessed by study, folder or file. "
            "Where a person has several of these, give --patient-pattern"
        )


def _labels_by(slices: pl.DataFrame, table: Labels | None) -> str:
    if table is None or not table.names:
        return ""
    many = bool(slices["row"].drop_nulls().is_duplicated().any())  # in a file, where it names files
    return table.form[0] if table.is_of_whole or (table.form == ("file",) and many) else ""


def _labelled(labels: pl.DataFrame) -> int:
    """How many rows have any value."""
    return (
        int(labels.select(pl.any_horizontal(pl.all().is_not_null())).to_series().sum() or 0)
        if labels.width
        else 0
    )


def _images(
    parts: Sequence[Path], slices: pl.DataFrame, shape: Shape
) -> Iterator[NDArray[np.int16]]:
    for number, of_part in slices.group_by("part", maintain_order=True):
        images, places = images_of(parts[int(number[0])], shape), of_part["place"].to_numpy()
        for start in range(0, len(places), _AT_ONCE):
            yield images[places[start : start + _AT_ONCE]]


def _write(
    out: Path,
    index: pl.DataFrame,
    images: Iterator[NDArray[np.int16]],
    flow: Flow,
    before: Store | None,
    shape: Shape,
    keys: Keys,
) -> None:
    with _successor(out, before) as folder:
        writer = StoreWriter(folder, size=shape.size)
        if before is not None:
            writer.take_over(before)
        with bar("slices", total=flow.new) as progress:
            for part in images:
                writer.add(part)
                progress.advance(len(part))
        refused, counts, notes = _history(flow, before, keys)
        writer.close(
            index,
            refused=refused,
            commit=commit(),
            spacing_mm=shape.spacing_mm,
            crop=shape.crop,
            keyed=keys.key is not None,
            flow=counts,
            notes=notes,
        )


def _history(
    flow: Flow, before: Store | None, keys: Keys
) -> tuple[pl.DataFrame, dict[str, int], tuple[str, ...]]:
    """Refusals, counts of files and notes, of this ingest and of those before it."""
    refused = table(flow.refusals, keys)
    counts = {name: getattr(flow, name) for name in COUNTED}
    if before is None:
        return refused, counts, flow.notes
    earlier = pl.read_csv(before.path / "refused.csv", schema=REFUSED)
    return (
        pl.concat([earlier, refused]).unique(maintain_order=True),
        {name: count + before.facts.flow.get(name, 0) for name, count in counts.items()},
        (*before.facts.notes, *flow.notes),
    )


@contextmanager
def _successor(out: Path, before: Store | None) -> Iterator[Path]:
    """A folder that becomes `out` when all is in it; the store before stays until then."""
    if before is None:
        with folder_whole(out) as folder:
            yield folder
        return
    following, old = out.with_name(f".{out.name}.next"), old_store(out)
    shutil.rmtree(following, ignore_errors=True)
    with folder_whole(following) as folder:
        yield folder
    with disk_errors(out):
        out.rename(old)
        following.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def old_store(out: Path) -> Path:
    """Where the store before an addition is for the moment in which its successor takes over."""
    return out.with_name(f".{out.name}.old")


def _nothing(refusals: Sequence[Refusal]) -> InputError:
    reasons = Counter(one.reason for one in refusals).most_common(_SHOWN)
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons) or "no files at all"
    return InputError(f"no slice could be read: {told}. Give other sources.")
