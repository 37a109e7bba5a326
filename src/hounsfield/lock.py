"""One process an output: the second is refused, and told who was first."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hounsfield.errors import BusyError, OutputError
from hounsfield.files import disk_errors

NAME = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process while the block runs; the folder is made where it is missing.

    The lock is the kernel's (`flock`), so that it ends with its process however that dies, and a
    number that a later process bears by chance refuses nobody. The file only says who holds it.

    Raises:
        BusyError: Another process holds the folder; the error names it.
        DiskError: The folder cannot be written.
        OutputError: There is a file where the folder should be.
    """
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise OutputError(f"{folder} is, or lies in, a file. Choose another folder.") from None
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip() or "unknown"
            raise BusyError(
                f"{folder} is in use by process {holder}. Wait until it ends, stop it, "
                "or choose another output."
            ) from None
        with disk_errors(folder):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # and with it the lock
