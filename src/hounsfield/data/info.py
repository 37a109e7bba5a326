"""What a store holds, for people and for programs; and a picture of it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hounsfield.data.assemble import Flow
from hounsfield.data.labels import rows_named
from hounsfield.data.store import Store
from hounsfield.files import write_png
from hounsfield.units import DISPLAY_MAX
from hounsfield.wording import plural

HU_EDGES: Final = (-32768, -950, -700, -200, -30, 20, 100, 300, 1000, 32768)
"""Between them: air, lung, its edges, fat, water, soft tissue, contrast, spongy, hard bone."""
SLICES_LOOKED_AT = 2000  # evenly over the store, for the histogram
MONTAGE_SIDE = 8  # slices a row and a column
MONTAGE_HU = (-160.0, 240.0)
MANY_CLASSES = 20  # a label with more values is described by its range
_SHOWN = 10


def describe(store: Store) -> dict[str, Any]:
    """Everything that `info` says, as plain values."""
    index, facts = store.index, store.facts
    return {
        "store": str(store.path),
        "hash": store.hash,
        "format_version": facts.format_version,
        "version": facts.version,
        "commit": facts.commit,
        "size": facts.size,
        "spacing_mm": facts.spacing_mm,
        "crop": facts.crop,
        "flow": {
            **facts.flow,
            "series": facts.series,
            "slices": facts.slices,
            "patients": facts.patients,
        },
        "lost": _lost(store),
        "notes": list(facts.notes),
        "units": dict(sorted(index["units"].value_counts().rows())),
        "slices_a_patient": _spread(index.group_by("patient").len()["len"]),
        "pixel_mm": _spread(index["spacing_x_mm"]),
        "slice_distance_mm": _spread(index["spacing_z_mm"]),
        "headers": {
            name: dict(
                sorted((value or "unknown", n) for value, n in index[name].value_counts().rows())
            )
            for name in ("vendor", "kernel", "contrast", "sex")
        },
        "hu_histogram": _histogram(store),
        "splits": _by_split(index),
        "labels": {name: _label(index, name) for name in store.labels},
    }


def lines(described: Mapping[str, Any]) -> Iterator[str]:
    """`describe`'s values as lines for a terminal."""
    yield from _flow(described)
    yield from _traits(described)
    yield from _shares(described["hu_histogram"] or ())
    for split, counts in described["splits"].items():
        yield (
            f"split {split}: {plural(counts['patients'], 'patient')}, "
            f"{plural(counts['slices'], 'slice')}"
        )
    for name, label in described["labels"].items():
        yield from _labelled(name, label)


def _flow(described: Mapping[str, Any]) -> Iterator[str]:
    """From files to slices."""
    flow = described["flow"]
    yield (
        f"{described['store']}: {plural(flow['slices'], 'slice')} of {described['size']} px, "
        f"{flow['series']:,} series, {plural(flow['patients'], 'patient')}"
    )
    yield (
        f"files: {flow.get('files', 0)} found = {flow.get('read', 0)} read + "
        f"{flow.get('skipped', 0)} skipped + {flow.get('duplicate', 0)} duplicate + "
        f"{flow.get('refused', 0)} refused"
    )
    for loss in described["lost"]:
        yield f"  {loss['files']} {loss['status']}: {loss['reason']}"
    for note in described["notes"][:_SHOWN]:
        yield f"  {note}"
    if len(described["notes"]) > _SHOWN:
        yield f"  and {plural(len(described['notes']) - _SHOWN, 'more note')} in store.json"


def _traits(described: Mapping[str, Any]) -> Iterator[str]:
    """What the slices are, and what their headers say."""
    yield f"units: {_listed(described['units'])}"
    for name, words in (
        ("slices_a_patient", "slices a patient"),
        ("pixel_mm", "pixel size in mm"),
        ("slice_distance_mm", "distance of slices in mm"),
    ):
        spread = described[name]
        if spread is not None:
            yield f"{words}: {spread['low']:g} to {spread['high']:g}, median {spread['median']:g}"
    for name, counts in described["headers"].items():
        if set(counts) != {"unknown"}:
            yield f"{name}: {_listed(counts)}"


def _shares(histogram: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if histogram:
        yield "share of pixels by HU:"
    for row in histogram:
        low, high = row["from"], row["to"]
        place = f"{low} to {high}"
        if low == HU_EDGES[0]:
            place = f"below {high}"
        elif high == HU_EDGES[-1]:
            place = f"from {low}"
        bar = "#" * round(40 * row["share"])
        yield f"  {place:>12}  {100 * row['share']:5.1f} %  {bar}".rstrip()


def _labelled(name: str, label: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"label {name}: {plural(label['labelled'], 'labelled slice')}, "
        f"{label['unlabelled']:,} without"
    )
    for row in label["values"]:
        yield (
            f"  {row['value']}: {plural(row['slices'], 'slice')}, "
            f"{plural(row['patients'], 'patient')}"
            + (f" ({_listed(row['by_split'])})" if row["by_split"] else "")
        )
    if "range" in label:
        yield f"  more than {MANY_CLASSES} different values"


def flow_lines(flow: Flow) -> Iterator[str]:
    """What an ingest did, as lines for a terminal."""
    yield (
        f"{plural(flow.files, 'file')}: {flow.read:,} read, {flow.skipped:,} skipped, "
        f"{flow.duplicate:,} duplicate, {flow.refused:,} refused"
    )
    reasons = Counter((one.status, one.reason) for one in flow.refusals)
    for (status, reason), count in reasons.most_common(_SHOWN):
        yield f"  {count} {status}: {reason}"
    if flow.refusals:
        yield f"  which files: {flow.listing}"
    yield (
        f"{plural(flow.new, 'new slice')}; the store has {flow.slices:,} of "
        f"{plural(flow.patients, 'patient')} in {flow.series:,} series, "
        f"{flow.labelled:,} with a label"
    )
    if flow.labels_by:
        level = "series" if flow.labels_by == "file" else flow.labels_by
        yield (
            f"  labels are by {flow.labels_by}: every slice of a {flow.labels_by} bears the label, "
            f'whatever it shows. Judge by {level}: level = "{level}" in the task'
        )
    for note in flow.notes[:_SHOWN]:
        yield f"  {note}"
    if flow.unmatched:
        rows = plural(len(flow.unmatched), "row")
        yield f"{rows} of the label table without a slice: {rows_named(flow.unmatched)}"


def write_montage(store: Store, path: Path) -> None:
    """A PNG of up to 64 slices, evenly over the store, HU in the soft-tissue window."""
    count = min(len(store), MONTAGE_SIDE**2)
    rows = np.linspace(0, len(store) - 1, count).round().astype(np.int64)
    images = store.read(rows).astype(np.float32)
    hu = store.is_hu[rows][:, None, None]
    low, high = MONTAGE_HU
    grey = np.where(hu, (images - low) / (high - low), images / DISPLAY_MAX).clip(0, 1) * 255
    columns = min(MONTAGE_SIDE, count)
    canvas = np.zeros((-(-count // columns) * store.size, columns * store.size), dtype=np.uint8)
    for place, image in enumerate(grey):
        top, left = (place // columns) * store.size, (place % columns) * store.size
        canvas[top : top + store.size, left : left + store.size] = image
    write_png(path, canvas)


def _lost(store: Store) -> list[dict[str, Any]]:
    file = store.path / "refused.csv"
    if not file.is_file():
        return []
    table = pl.read_csv(file, infer_schema=False)
    counts = table.group_by("status", "reason").agg(pl.len().alias("files"))
    return counts.sort("files", "reason", descending=[True, False]).to_dicts()


def _spread(values: pl.Series) -> dict[str, float] | None:
    known = values.drop_nulls()
    if not len(known):
        return None
    numbers = known.cast(pl.Float64).to_numpy()
    return {
        "low": float(numbers.min()),
        "median": float(np.median(numbers)),
        "high": float(numbers.max()),
    }


def _histogram(store: Store) -> list[dict[str, Any]] | None:
    rows = np.flatnonzero(store.is_hu)
    if not len(rows):
        return None
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), SLICES_LOOKED_AT)).astype(np.int64)]
    counts = np.zeros(len(HU_EDGES) - 1, dtype=np.int64)
    for row in chosen:
        counts += _count(store.read(np.array([row])))
    return [
        {"from": low, "to": high, "share": float(count / counts.sum())}
        for (low, high), count in zip(pairwise(HU_EDGES), counts, strict=True)
    ]


def _count(images: NDArray[np.int16]) -> NDArray[np.int64]:
    return np.histogram(images, bins=np.array(HU_EDGES))[0].astype(np.int64)


def _by_split(index: pl.DataFrame) -> dict[str, dict[str, int]]:
    counted = (
        index.filter(pl.col("split").is_not_null())
        .group_by("split")
        .agg(pl.col("patient").n_unique().alias("patients"), pl.len().alias("slices"))
        .sort("split")
    )
    return {row.pop("split"): row for row in counted.to_dicts()}


def _label(index: pl.DataFrame, name: str) -> dict[str, Any]:
    labelled = index.filter(pl.col(name).is_not_null())
    found: dict[str, Any] = {
        "labelled": len(labelled),
        "unlabelled": len(index) - len(labelled),
        "values": [],
    }
    if labelled[name].n_unique() > MANY_CLASSES:
        low, high = labelled[name].min(), labelled[name].max()
        return {**found, "range": [low, high]}
    for value in labelled[name].unique().sort():
        rows = labelled.filter(pl.col(name) == value)
        by_split = {split: counts["patients"] for split, counts in _by_split(rows).items()}
        found["values"].append(
            {
                "value": value,
                "slices": len(rows),
                "patients": rows["patient"].n_unique(),
                "by_split": by_split,
            }
        )
    return found


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
