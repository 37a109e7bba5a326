"""One process an output: the second is refused, and told who was first."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hounsfield.errors import BusyError, OutputError
from hounsfield.files import disk_errors, folder_whole, sweep

NAME = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process while the block runs.

    The folder is made where it is missing, and goes again if the block leaves nothing in it.

    Raises:
        BusyError: Another process holds the folder; the error names it.
        DiskError: The folder cannot be written.
        OutputError: There is a file where the folder should be.
    """
    with _made(folder), _locked(folder / NAME, folder):
        yield


@contextmanager
def reserved(path: Path) -> Iterator[None]:
    """Hold the name of an output that is not there yet while the block runs.

    What writers of this output have left that were killed is gone when the block begins.

    Raises:
        BusyError: Another process holds the name; the error names it.
        DiskError: The folder around it cannot be written.
        OutputError: `path` exists, or there is a file where the folder around it should be.
    """
    _refuse_existing(path)
    with _made(path.parent), _locked(path.with_name(f".{path.name}{NAME}"), path):
        _refuse_existing(path)  # another process may have made it and let its name go since
        sweep(path.parent, path.name)
        yield


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise OutputError(f"{path} exists already. Choose another name, or remove it.")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes the new folder `path` when the block ends without an error.

    Raises:
        BusyError, DiskError, OutputError: As `reserved`.
    """
    with reserved(path), folder_whole(path) as folder:
        yield folder


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make `folder` and those above it; in the end those are removed again that are empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise OutputError(f"{folder} is, or lies in, a file. Choose another folder.") from None
    try:
        yield
    finally:
        with suppress(OSError):  # one that is not empty, and so all above it
            for path in missing:
                path.rmdir()


@contextmanager
def _locked(file: Path, output: Path) -> Iterator[None]:
    """Hold the lock `file` of an output.

    The lock is the kernel's (`flock`), so that it ends with its process however that dies, and a
    number that a later process bears by chance refuses nobody. The file only says who holds it.
    """
    with disk_errors(output):
        descriptor = _taken(file, output)
    try:
        with disk_errors(output):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(descriptor)  # and with it the lock


def _taken(file: Path, output: Path) -> int:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 100, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise BusyError(
                f"{output} is in use by process {holder}. Wait until it ends, stop it, "
                "or choose another output."
            ) from None
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # who held it removed it between our two calls
