"""The slice store: int16 shards on the disk, one index, one `store.json`; read by memory map.

STORE/
  store.json      format, versions, settings, counts, the shards and their checksums
  index.parquet   a row a slice: who, where, in which units, labels
  shards/         00000.npy ...: int16 (rows, size, size)
  refused.csv     every file that is not in the store, and why
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hounsfield.config import Config
from hounsfield.errors import ConfigError, StoreError, first_line
from hounsfield.files import read_object, sha256_of

FORMAT_VERSION = 1

COLUMNS: Final[Mapping[str, type[pl.DataType]]] = {
    "slice": pl.Int64,
    "patient": pl.String,
    "study": pl.String,
    "series": pl.String,
    "z": pl.Int32,
    "z_mm": pl.Float64,
    "spacing_z_mm": pl.Float64,
    "spacing_y_mm": pl.Float64,
    "spacing_x_mm": pl.Float64,
    "units": pl.String,
    "source": pl.String,
    "vendor": pl.String,
    "kernel": pl.String,
    "contrast": pl.String,
    "sex": pl.String,
    "age": pl.String,
    "split": pl.String,
}
"""The columns that every index has, in their order; label columns follow."""

REFUSED: Final = {
    "file": pl.String, "status": pl.String, "reason": pl.String, "other": pl.String
}  # fmt: skip
"""The columns of `refused.csv`; `file` and `other` are keyed hashes unless identities are kept."""


class Shard(Config):
    """One file of slices."""

    name: str
    rows: int
    sha256: str


class StoreFacts(Config):
    """What `store.json` says."""

    format_version: int
    version: str
    commit: str = ""
    size: int
    slices: int
    patients: int
    series: int
    spacing_mm: float | None = None
    crop: Literal["body"] | None = None
    keyed: bool = True
    flow: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Store:
    """A store that was opened: its facts, its index, and its slices on demand.

    Attributes:
        path: The store's folder.
        facts: What `store.json` says.
        index: A row a slice, in the order of the rows; the columns are `COLUMNS`, then labels.
        hash: SHA-256 over the shards' checksums and the index: equal for equal content.
    """

    path: Path
    facts: StoreFacts
    index: pl.DataFrame
    hash: str
    _maps: tuple[NDArray[np.int16], ...]
    _starts: NDArray[np.int64]

    @classmethod
    def open(cls, path: Path | str) -> "Store":
        """The store in the folder `path`; its shards are checked for presence and size.

        Raises:
            StoreError: There is no store, it is of another format, or a part of it is missing.
        """
        path = Path(path)
        facts = _read_facts(path)
        index, index_sha256 = _read_index(path, facts)
        maps = tuple(_map_shard(path, shard, facts.size) for shard in facts.shards)
        starts = np.cumsum([0, *(shard.rows for shard in facts.shards)], dtype=np.int64)
        if starts[-1] != facts.slices:
            raise _damaged(path, f"its shards hold {starts[-1]} slices, not {facts.slices}")
        digest = hashlib.sha256(
            "\n".join([*(shard.sha256 for shard in facts.shards), index_sha256]).encode()
        )
        return cls(path, facts, index, digest.hexdigest(), maps, starts)

    def __len__(self) -> int:
        return self.facts.slices

    @property
    def size(self) -> int:
        """Height and width of every slice in pixels."""
        return self.facts.size

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the label columns."""
        return tuple(name for name in self.index.columns if name not in COLUMNS)

    @property
    def is_hu(self) -> NDArray[np.bool_]:
        """`(slices,)`: true where a slice is in HU, false where it is in display values."""
        return (self.index["units"] == "hu").to_numpy()

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """The slices of `rows`, in their order: `(rows, size, size)`.

        Raises:
            StoreError: A row is not in the store.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise StoreError(
                f"rows {rows.min()} to {rows.max()} were asked of {self.path}, which has rows 0 to "
                f"{len(self) - 1}."
            )
        images = np.empty((len(rows), self.size, self.size), dtype=np.int16)
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        for shard in np.unique(shard_of):
            here = np.flatnonzero(shard_of == shard)
            images[here] = self._maps[shard][rows[here] - self._starts[shard]]
        return images

    def verify(self) -> None:
        """Read every shard and compare its checksum.

        Raises:
            StoreError: A shard is not what was written.
        """
        for shard in self.facts.shards:
            if sha256_of(self.path / "shards" / shard.name) != shard.sha256:
                raise _damaged(self.path, f"shards/{shard.name} is not what was written")


def _read_facts(path: Path) -> StoreFacts:
    file = path / "store.json"
    if not path.exists():
        raise StoreError(
            f"there is no store at {path}. Make one with: hounsfield ingest SOURCE --out {path}"
        )
    if not file.is_file():
        what = "it has no store.json" if path.is_dir() else "it is a file"
        raise StoreError(
            f"{path} is no store: {what}. If it holds scans, make a store of them with: "
            f"hounsfield ingest {path} --out STORE"
        )
    try:
        facts = StoreFacts.model_validate_json(file.read_bytes())
    except (ValueError, ConfigError, OSError) as error:
        version = read_object(file).get("format_version")
        if version not in (None, FORMAT_VERSION):
            raise _foreign(path, version) from None
        raise _damaged(path, f"store.json cannot be read ({first_line(error)})") from None
    if facts.format_version != FORMAT_VERSION:
        raise _foreign(path, facts.format_version)
    return facts


def _read_index(path: Path, facts: StoreFacts) -> tuple[pl.DataFrame, str]:
    try:
        content = (path / "index.parquet").read_bytes()
        index = pl.read_parquet(content)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _damaged(path, f"index.parquet cannot be read ({first_line(error)})") from None
    wrong = [name for name, kind in COLUMNS.items() if index.schema.get(name) != kind]
    if wrong:
        raise _damaged(path, f"index.parquet lacks the columns {', '.join(wrong)}")
    if len(index) != facts.slices:
        raise _damaged(path, f"index.parquet has {len(index)} rows, not {facts.slices}")
    return index, hashlib.sha256(content).hexdigest()


def _map_shard(path: Path, shard: Shard, size: int) -> NDArray[np.int16]:
    if Path(shard.name).name != shard.name:
        raise _damaged(path, f"store.json names a shard outside the store: {shard.name!r}")
    try:
        images = np.load(path / "shards" / shard.name, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _damaged(path, f"shards/{shard.name} cannot be read ({first_line(error)})") from None
    if images.dtype != np.int16 or images.shape != (shard.rows, size, size):
        raise _damaged(path, f"shards/{shard.name} is {images.dtype} {images.shape}")
    return images


def _foreign(path: Path, version: object) -> StoreError:
    return StoreError(
        f"{path} is a store of format {version}; this version reads format {FORMAT_VERSION}. "
        "Ingest its sources again."
    )


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(f"{path} is damaged: {what}. Ingest its sources again.")
