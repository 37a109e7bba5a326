"""Drop near-duplicate slices within a volume: greedy by the distance of difference hashes.

Wolf et al., Less is More: Selective Reduction of CT Data for Self-Supervised Pre-Training of
Deep Learning Models with Contrastive Learning Improves Downstream Classification Performance,
arXiv 2410.14524: a 64-bit difference hash, distance 6, slice by slice through every volume.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hounsfield.data.likeness import BITS, CHUNK, Hashes, difference_hashes, distances
from hounsfield.data.store import Store
from hounsfield.data.store_writer import StoreWriter
from hounsfield.errors import ConfigError
from hounsfield.files import check_space, write_text
from hounsfield.lock import new_folder
from hounsfield.provenance import commit
from hounsfield.wording import percent, plural

DISTANCE = 6  # the paper's best
CURVE: Final = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)


@dataclass(frozen=True)
class Thinned:
    """What thinning kept.

    Attributes:
        volumes: series, slices, kept: a row a volume.
        curve: For each distance how many slices of the store would be kept.
    """

    volumes: pl.DataFrame
    curve: Mapping[int, int]


def thin(
    store: Store,
    out: Path,
    *,
    distance: int = DISTANCE,
    advance: Callable[[int], None] = lambda _: None,
) -> Thinned:
    """Write the store `out` with the slices of `store` that are no near-duplicates.

    `out` also holds `thinned.csv` (series, slices, kept) and `thinning.svg`, the curve of kept
    slices over the distance. `advance` is told of slices as they are hashed, and again as they are
    written or dropped.

    Raises:
        OutputError: `out` exists.
        ConfigError: No hash has such a distance from another.
    """
    if not 0 <= distance < BITS:
        raise ConfigError(f"a distance of {distance} is not allowed; give 0 to {BITS - 1} bits.")
    with new_folder(out) as folder:
        index = store.index
        hashes = difference_hashes(store, index["slice"].to_numpy(), advance=advance)
        volumes = _volumes(index)
        kept = {series: rows[keep(hashes[rows], distance)] for series, rows in volumes.items()}
        table = pl.DataFrame(
            [(series, len(rows), len(kept[series])) for series, rows in volumes.items()],
            schema={"series": pl.String, "slices": pl.Int64, "kept": pl.Int64},
            orient="row",
        )
        curve = {
            other: sum(int(keep(hashes[rows], other).sum()) for rows in volumes.values())
            for other in sorted({*CURVE, distance})
        }
        rows = np.sort(np.concatenate([np.zeros(0, np.int64), *kept.values()]))
        check_space(out, len(rows) * 2 * store.size**2)
        advance(len(store) - len(rows))
        _write(store, rows, folder, distance, advance)
        write_text(folder / "thinned.csv", table.write_csv())
        write_text(folder / "thinning.svg", _figure(curve, distance))
    return Thinned(table, curve)


def lines(thinned: Thinned, distance: int) -> Iterator[str]:
    """What was kept, as lines for a terminal."""
    slices, kept = (thinned.volumes[name].to_numpy() for name in ("slices", "kept"))
    shares = kept / slices
    yield f"{kept.sum():,} of {plural(slices.sum(), 'slice')} kept at distance {distance}"
    yield (
        f"a volume kept {percent(shares.min())} to {percent(shares.max())} of its slices, "
        f"median {percent(np.median(shares))}"
    )
    yield "kept at other distances: " + ", ".join(f"{at}: {n}" for at, n in thinned.curve.items())


def keep(hashes: Hashes, distance: int) -> NDArray[np.bool_]:
    """Which slices stay: those farther than `distance` from every slice kept before them."""
    stays = np.zeros(len(hashes), dtype=bool)
    left = np.ones(len(hashes), dtype=bool)
    while left.any():
        first = int(np.argmax(left))
        stays[first] = True
        left &= distances(hashes, hashes[first]) > distance
    return stays


def _volumes(index: pl.DataFrame) -> dict[str, NDArray[np.int64]]:
    """The rows of every volume from feet to head."""
    ordered = index.sort("patient", "series", "z", maintain_order=True)
    return {
        f"{patient}/{series}": rows["slice"].to_numpy()
        for (patient, series), rows in ordered.group_by("patient", "series", maintain_order=True)
    }


def _write(
    store: Store,
    rows: NDArray[np.int64],
    folder: Path,
    distance: int,
    advance: Callable[[int], None],
) -> None:
    writer = StoreWriter(folder, size=store.size)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        writer.add(store.read(part))
        advance(len(part))
    facts = store.facts
    writer.close(
        store.index[rows],
        commit=commit(),
        spacing_mm=facts.spacing_mm,
        crop=facts.crop,
        keyed=facts.keyed,
        flow={**facts.flow, "slices before thinning": facts.slices},
        notes=(*facts.notes, f"thinned at distance {distance} from the store {store.hash[:16]}"),
    )


def _figure(curve: Mapping[int, int], distance: int) -> str:
    import altair as alt

    points = [{"distance": at, "kept": kept} for at, kept in curve.items()]
    base = alt.Chart(alt.InlineData(values=points)).encode(
        x=alt.X("distance:Q", title="Hamming distance (bits) up to which a slice is dropped"),
        y=alt.Y("kept:Q", title="slices kept", scale=alt.Scale(zero=True)),
    )
    chosen = base.transform_filter(alt.datum.distance == distance)
    chart = base.mark_line(point=True) + chosen.mark_point(size=200, filled=False)
    buffer = io.StringIO()
    chart.properties(width=420, height=260).save(buffer, format="svg")
    return buffer.getvalue()
