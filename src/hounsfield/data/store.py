"""The slice store: int16 shards on the disk, one index, one `store.json`; read by memory map.

STORE/
  store.json      format, versions, settings, counts, the shards and their checksums
  index.parquet   a row a slice: who, where, in which units, labels
  shards/         00000.npy ...: int16 (rows, size, size)
  refused.csv     every file that is not in the store, and why
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
import polars as pl
from numpy.lib import format as npy
from numpy.typing import NDArray

from hounsfield import __version__
from hounsfield.config import Config
from hounsfield.errors import ConfigError, StoreError
from hounsfield.files import disk_errors, folder_whole, read_object, write_text, write_whole

FORMAT_VERSION = 1
SHARD_BYTES = 256 * 2**20

SPLITS = ("train", "val", "test")

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

_MAY_BE_NULL = ("z_mm", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm", "split")
_WHERE_UNKNOWN: Final[Mapping[str, Any]] = {
    "study": "", "vendor": "", "kernel": "", "contrast": "", "sex": "", "age": "", "units": "hu",
    "source": "", "z": 0,
}  # fmt: skip
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
            if _sha256(self.path / "shards" / shard.name) != shard.sha256:
                raise _damaged(self.path, f"shards/{shard.name} is not what was written")


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
        shard = Shard(name=self._shard.name, rows=self._rows, sha256=_sha256(self._shard))
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


def rows_of(store: Store, patients: Iterable[str]) -> NDArray[np.int64]:
    """The rows of `store` whose patient is one of `patients`, ascending."""
    chosen = store.index["patient"].is_in(list(patients))
    return np.flatnonzero(chosen.to_numpy()).astype(np.int64)


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
        raise _damaged(path, f"store.json cannot be read ({_first_line(error)})") from None
    if facts.format_version != FORMAT_VERSION:
        raise _foreign(path, facts.format_version)
    return facts


def _read_index(path: Path, facts: StoreFacts) -> tuple[pl.DataFrame, str]:
    try:
        content = (path / "index.parquet").read_bytes()
        index = pl.read_parquet(content)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _damaged(path, f"index.parquet cannot be read ({_first_line(error)})") from None
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
        raise _damaged(path, f"shards/{shard.name} cannot be read ({_first_line(error)})") from None
    if images.dtype != np.int16 or images.shape != (shard.rows, size, size):
        raise _damaged(path, f"shards/{shard.name} is {images.dtype} {images.shape}")
    return images


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _foreign(path: Path, version: object) -> StoreError:
    return StoreError(
        f"{path} is a store of format {version}; this version reads format {FORMAT_VERSION}. "
        "Ingest its sources again."
    )


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(f"{path} is damaged: {what}. Ingest its sources again.")
