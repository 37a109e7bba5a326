"""An array that is made once and read from its file from then on."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hounsfield.files import write_whole

T = TypeVar("T", np.float32, np.float64)


def kept(path: Path, make: Callable[[], NDArray[T]]) -> NDArray[T]:
    """The array in `path`, or the one that `make` gives, left there.

    Raises:
        DiskError: The file cannot be written.
    """
    try:
        # Opened here, for NumPy leaves a damaged file open; checksums are checked by reading.
        with path.open("rb") as file, np.load(file) as archive:
            there: NDArray[T] = archive["features"]
            return there
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        array = make()  # nobody was first, or the file is damaged
    content = io.BytesIO()
    np.savez(content, features=array)
    write_whole(path, content.getvalue())
    return array
