"""The writer of stores: slices as they come into shards, in the end the index and `store.json`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import polars as pl
from numpy.lib import format as npy
from numpy.typing import NDArray

from hounsfield import __version__
from hounsfield.data.store import (
    COLUMNS,
    FORMAT_VERSION,
    REFUSED,
    Shard,
    Store,
    StoreFacts,
)
from hounsfield.files import disk_errors, folder_whole, sha256_of, write_text, write_whole

SHARD_BYTES = 256 * 2**20

_MAY_BE_NULL = ("z_mm", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm", "split")
_WHERE_UNKNOWN: Final[Mapping[str, Any]] = {
    "study": "", "vendor": "", "kernel": "", "contrast": "", "sex": "", "age": "", "units": "hu",
    "source": "", "z": 0,
}  # fmt: skip


class StoreWriter:
    """Writes a store's files into a folder that the caller makes and renames.

    `add` images in the order of the index's rows, then `close` with the index.
    """

    def __init__(self, folder: Path, *, size: int, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder = folder
        self.size = size
        self.shards: list[Shard] = []
        self._rows_a_shard = max(shard_bytes // (2 * size * size), 1)
        self._rows = 0  # in the shard that is being written
        with disk_errors(folder):
            (folder / "shards").mkdir(parents=True, exist_ok=True)

    def add(self, images: NDArray[np.int16]) -> None:
        """Append `images`, int16 `(n, size, size)`."""
        if images.dtype != np.int16 or images.shape[1:] != (self.size, self.size):
            raise ValueError(f"images are {images.dtype} {images.shape}, not (n, size, size) int16")
        while len(images):
            room = self._rows_a_shard - self._rows
            self._append(images[:room])
            images = images[room:]

    def take_over(self, store: Store) -> None:
        """Begin with the shards of `store`, linked, not copied, where the disk can."""
        for shard in store.facts.shards:
            source = store.path / "shards" / shard.name
            target = self.folder / "shards" / shard.name
            try:
                target.hardlink_to(source)
            except OSError:  # another file system, or one without links
                write_whole(target, source.read_bytes())
            self.shards.append(shard)

    def close(
        self, index: pl.DataFrame, *, refused: pl.DataFrame | None = None, **facts: Any
    ) -> StoreFacts:
        """Write what is left, the index, the refusals and `store.json`; `facts` go into the last.

        Args:
            index: A row a slice in the order of `add`; `complete_index` says what may be left out.
            refused: The columns of `REFUSED`.
            **facts: Fields of `StoreFacts` that the writer cannot know.
        """
        if self._rows:
            self._end_shard()
        index = complete_index(index)
        rows = sum(shard.rows for shard in self.shards)
        if len(index) != rows:
            raise ValueError(f"the index has {len(index)} rows for {rows} slices")
        with disk_errors(self.folder):
            index.write_parquet(self.folder / "index.parquet")
            (pl.DataFrame(schema=REFUSED) if refused is None else refused).write_csv(
                self.folder / "refused.csv"
            )
            for name in ("index.parquet", "refused.csv"):
                with (self.folder / name).open("rb") as file:
                    os.fsync(file.fileno())
        whole = StoreFacts(
            format_version=FORMAT_VERSION,
            version=__version__,
            size=self.size,
            slices=rows,
            patients=index["patient"].n_unique(),
            series=index["series"].n_unique(),
            shards=tuple(self.shards),
            **facts,
        )
        write_text(self.folder / "store.json", whole.model_dump_json(indent=2) + "\n")
        return whole

    @property
    def _shard(self) -> Path:
        return self.folder / "shards" / f"{len(self.shards):05d}.npy"

    def _append(self, images: NDArray[np.int16]) -> None:
        """Add to the shard that is being written, which ends when it is full."""
        with disk_errors(self._shard), self._shard.open("ab") as file:
            if not self._rows:
                self._write_header(file)
            file.write(np.ascontiguousarray(images).data)  # tofile hides what the disk said
        self._rows += len(images)
        if self._rows == self._rows_a_shard:
            self._end_shard()

    def _end_shard(self) -> None:
        """Put the number of rows into the header, for which numpy leaves room; flush; checksum."""
        with disk_errors(self._shard), self._shard.open("r+b") as file:
            self._write_header(file)
            file.flush()
            os.fsync(file.fileno())
        shard = Shard(name=self._shard.name, rows=self._rows, sha256=sha256_of(self._shard))
        self.shards.append(shard)
        self._rows = 0

    def _write_header(self, file: IO[bytes]) -> None:
        shape = (self._rows, self.size, self.size)
        npy.write_array_header_1_0(file, {"descr": "<i2", "fortran_order": False, "shape": shape})


def write_store(
    path: Path,
    images: NDArray[np.int16],
    index: pl.DataFrame,
    *,
    shard_bytes: int = SHARD_BYTES,
) -> Store:
    """A new store at `path` from images in memory: `(n, size, size)` and their index."""
    with folder_whole(path) as folder:
        writer = StoreWriter(folder, size=images.shape[-1], shard_bytes=shard_bytes)
        writer.add(images)
        writer.close(index)
    return Store.open(path)


def complete_index(index: pl.DataFrame) -> pl.DataFrame:
    """`index` with every column of `COLUMNS` in place, typed and in order, labels after.

    `slice` is numbered anew. `patient` and `series` must be there; what the rest may lack is
    filled: null for positions, spacings and split, `"hu"` for units, "" for what headers say.
    """
    given = set(index.columns)
    columns = [pl.int_range(pl.len(), dtype=pl.Int64).alias("slice")]
    for name, kind in list(COLUMNS.items())[1:]:
        if name in given:
            columns.append(pl.col(name).cast(kind))
        elif name in _WHERE_UNKNOWN or name in _MAY_BE_NULL:
            columns.append(pl.lit(_WHERE_UNKNOWN.get(name), dtype=kind).alias(name))
        else:
            raise ValueError(f"the index lacks the column {name!r}")
    labels = [pl.col(name) for name in index.columns if name not in COLUMNS]
    return index.select(*columns, *labels)
