"""Faults of the machine, named in the words of the settings that avoid them."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from hounsfield.errors import MemoryShortError, WorkerError

T = TypeVar("T")


@contextmanager
def memory_named() -> Iterator[None]:
    """Turn running out of memory inside the block into an error that says what to lower.

    Raises:
        MemoryShortError: The device or the machine has no memory left.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
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


def _is_memory(error: Exception) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return not isinstance(error, RuntimeError) or (
        isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    )
