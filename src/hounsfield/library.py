"""What the public door opens that has no room of its own: a store by path, a study's results."""

from pathlib import Path

import polars as pl

from hounsfield.data.store import Store
from hounsfield.errors import InputError


def open_store(path: str | Path) -> Store:
    """The store in the folder `path`; its slices are read when they are asked for.

    Raises:
        StoreError: There is no store, or it is damaged.
    """
    return Store.open(path)


def read_results(folder: str | Path) -> pl.DataFrame:
    """The numbers of a judged study, a row a number with its interval and its n.

    Raises:
        InputError: The folder holds no results.
    """
    file = Path(folder) / "results.parquet"
    try:
        return pl.read_parquet(file)
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no results. Give a study's folder; `hounsfield report {folder}` "
            "judges a study whose cells are there."
        ) from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{file} cannot be read: {error}. Judge the study again.") from None
