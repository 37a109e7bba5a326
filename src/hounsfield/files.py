"""Files and folders that are written whole or not at all; JSON that may not be there."""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hounsfield.errors import DiskError, OutputError

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

_DISK = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
}  # fmt: skip
_TORN = r"\.{name}\.[0-9a-f]{{8}}\.part"  # what `_beside` makes
_PLACE = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` under a temporary name, flush it to the disk, then rename.

    Raises:
        DiskError: The disk is full or not writable; `path` is as it was before.
    """
    temporary = _beside(path)
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_whole` of `text` as UTF-8."""
    write_whole(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_whole` of `value` as indented JSON; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_parquet(path: Path, table: "pl.DataFrame") -> None:
    """`write_whole` of `table`."""
    content = io.BytesIO()
    table.write_parquet(content)
    write_whole(path, content.getvalue())


def write_png(path: Path, pixels: "NDArray[np.uint8]") -> None:
    """`write_whole` of greys `(height, width)` or colours `(height, width, 3)` as PNG."""
    from PIL import Image  # nobody waits for it who writes no picture

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    write_whole(path, content.getvalue())


def sha256_of(path: Path) -> str:
    """The checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name when the block ends without an error.

    What the block itself writes there it wraps in `disk_errors`: it may read elsewhere.

    Raises:
        DiskError: The disk is full or not writable.
        FileExistsError: `path` exists already; whether it may be replaced is the caller's to say.
    """
    if path.exists():
        raise FileExistsError(path)
    temporary = _beside(path)
    with disk_errors(path):
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with disk_errors(path):
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the disk's refusals inside the block into errors that name `path`.

    Raises:
        DiskError: The disk is full or not writable.
        OutputError: `path` lies below a file, or is a folder where a file should be.
    """
    try:
        yield
    except OSError as error:
        number = _number(error)
        if number in _PLACE:
            cause = f" ({error.filename})" if error.filename else ""
            raise OutputError(
                f"cannot write {path}: {os.strerror(number)}{cause}. Give a place below a folder."
            ) from error
        if number not in _DISK:
            raise
        raise DiskError(
            f"cannot write {path}: {os.strerror(number)}. Free space there or choose another "
            "folder, then run the same command again."
        ) from error


def _number(error: OSError) -> int:
    """The system's number of an error, which polars and pydicom have in its text; or 0."""
    if error.errno is not None:
        return error.errno
    told = re.search(r"(?:os error|\[Errno) (\d+)", str(error))
    return int(told[1]) if told else 0


def check_space(place: Path, n_bytes: int) -> None:
    """Say now rather than after an hour that `place` has no room for about `n_bytes`.

    Raises:
        DiskError: It has not.
    """
    folder = next(path for path in (place, *place.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise DiskError(
            f"{place} needs about {_amount(n_bytes)} and its disk has {_amount(free)} free. Free "
            "space there or choose another folder, then run the same command again."
        )


def _amount(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


def sweep(folder: Path, name: str | None = None, *, but: str | None = None) -> None:
    """Remove what writers that were killed have left of `name` in `folder`, or of all below it.

    The caller holds the lock of what is written there, so that no writer is at work; `but` is a
    folder in it with a lock of its own.
    """
    torn_name = re.compile(_TORN.format(name=".+" if name is None else re.escape(name)))
    find = folder.rglob("*") if name is None else folder.glob(".*")
    with disk_errors(folder):
        for torn in [path for path in find if torn_name.fullmatch(path.name)]:
            if torn.relative_to(folder).parts[0] == but:
                continue
            if torn.is_dir():
                shutil.rmtree(torn, ignore_errors=True)
            else:
                torn.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.part"
