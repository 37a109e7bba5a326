"""Faults of the machine, named in the words of the settings that avoid them."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from hounsfield.errors import MemoryShortError, StoreError, WorkerError

T = TypeVar("T")


@contextmanager
def memory_named() -> Iterator[None]:
    """Turn running out of memory inside the block into an error that says what to lower.

    Raises:
        MemoryShortError: The device or the machine has no memory left.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        where = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "this machine"
        raise MemoryShortError(
            f"{where} is out of memory. Lower batch_size (and raise loop.accumulate by as much to "
            "keep the update), image_size, or take a smaller backbone; then run again."
        ) from error


def reader_named(items: Iterator[T]) -> Generator[T]:
    """The items; a reader that dies over a file is named.

    Raises:
        WorkerError: Reading failed.
    """
    try:
        yield from items
    except OSError as error:
        raise WorkerError(
            f"reading the images failed: {error}. Is the store's disk still there? "
            "Run the same command again to go on from the last checkpoint."
        ) from error


def unchanged(folders: Iterable[Path]) -> Callable[[], None]:
    """A check that the files below `folders` are still those of now, by size and time.

    The check raises `StoreError` where they are not: what is mapped into memory from a file that
    somebody rewrites is neither the old data nor the new.
    """
    before = {folder: _stamps(folder) for folder in folders}

    def check() -> None:
        for folder, stamps in before.items():
            now = _stamps(folder)
            if now != stamps:
                names = sorted(
                    path for path in {*now, *stamps} if now.get(path) != stamps.get(path)
                )
                raise StoreError(
                    f"{folder} was changed while it was read ({names[0]}). The last checkpoint is "
                    "kept. Bring the store back as it was, or train anew in another folder."
                )

    return check


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    files = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {
        str(path.relative_to(folder)): (facts.st_size, facts.st_mtime_ns)
        for path, facts in files.items()
    }


def _is_memory(error: Exception) -> bool:
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error)  # the CPU's allocator: a RuntimeError
