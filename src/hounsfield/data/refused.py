"""Which files stayed out: in the store by keyed hashes, beside the key by their names.

Hospitals name folders after patients, so names of files are identities: a store holds them only if
it was told to keep identities.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from hounsfield.data.keys import Keys
from hounsfield.data.refusal import Refusal
from hounsfield.data.store import REFUSED
from hounsfield.files import disk_errors, write_text


def table(refusals: Sequence[Refusal], keys: Keys) -> pl.DataFrame:
    """The rows of `refused.csv`."""
    rows = [
        (keys("file", one.file), one.status, one.reason, keys("file", one.other))
        for one in refusals
    ]
    return pl.DataFrame(rows, schema=REFUSED, orient="row")


def names_beside(key: Path, out: Path) -> Path:
    """Where the names of files are that the output `out` has the hashes of, outside of it."""
    place = hashlib.sha256(str(out.resolve()).encode()).hexdigest()
    return key.with_name(f"{key.name}.refused") / f"{out.name}-{place[:8]}.csv"


def names(refusals: Sequence[Refusal], keys: Keys) -> pl.DataFrame:
    """What `refused.csv` has, and `name` for every file."""
    told = pl.DataFrame({"name": [one.file for one in refusals]}, schema={"name": pl.String})
    return told.hstack(table(refusals, keys))


def write_names(path: Path, told: pl.DataFrame) -> None:
    """Add rows of text, which tell names, to the table at `path`; its folder is for its owner.

    Raises:
        DiskError: It cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        if path.exists():
            told = pl.concat([pl.read_csv(path, infer_schema=False), told], how="diagonal")
    write_text(path, told.unique(maintain_order=True).write_csv())
