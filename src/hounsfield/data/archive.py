"""What lies in the sources: files on the disk and members of zip archives, by content, not name."""

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from hounsfield.data.refusal import Refusal
from hounsfield.errors import InputError, ReadError

Kind = Literal["dicom", "nifti", "image", "medmnist", "itk"]

STAGING = ".ingest"  # ends the hidden name of a folder where a store is being made
HEAD_BYTES = 1024
MAX_BYTES = 2 * 2**30  # of one file; the largest volume with room to spare
BOMB_BYTES, BOMB_RATIO = 64 * 2**20, 200  # a member is a bomb beyond both
_DIGITS = re.compile("([0-9]+)")
_TEXT = 10**18  # sorts text after every number
_BROKEN = (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


class Entry(NamedTuple):
    """A file, or a member of a zip archive.

    Attributes:
        name: The path relative to the source, below the source's own name where there are
            several; a member's follows its archive's.
        path: The file on the disk.
        kind: What its first bytes say that it is.
        n_bytes: Its size.
        mtime_ns: When the file on the disk was changed last.
        member: The name inside the archive.
    """

    name: str
    path: Path
    kind: Kind
    n_bytes: int
    mtime_ns: int
    member: str | None = None

    def read(self, n_bytes: int = -1) -> bytes:
        """The whole content, or its first `n_bytes`.

        Raises:
            ReadError: It cannot be read.
        """
        try:
            if self.member is None:
                with self.path.open("rb") as file:
                    return file.read(n_bytes)
            with _opened(self.path, self.path.stat().st_mtime_ns).open(self.member) as member:
                return member.read(n_bytes)
        except Exception as error:  # decompressors fail in as many ways as there are decompressors
            raise ReadError(f"cannot be read ({type(error).__name__})") from None

    @property
    def stamp(self) -> str:
        """A text that changes when the file changes."""
        return f"{self.path}|{self.member}|{self.n_bytes}|{self.mtime_ns}"


@lru_cache(maxsize=1)
def _opened(path: Path, mtime_ns: int) -> zipfile.ZipFile:
    """The archive that was read last: its directory is parsed once, not once a member."""
    del mtime_ns  # a changed archive is another one
    return zipfile.ZipFile(path)


def walk(sources: Sequence[Path]) -> Iterator[Entry | Refusal]:
    """Every file below `sources` in the order of names, as an entry or as a refusal.

    Raises:
        InputError: A source does not exist, or is a store.
    """
    for path, name in files_below(sources):
        yield from look_at(path, name)


def files_below(sources: Sequence[Path]) -> list[tuple[Path, str]]:
    """The files below `sources`, archives as one, with their names; none has been opened.

    Folders that cannot be looked into, and links to folders, are among them, to be told of.

    Raises:
        InputError: A source does not exist, or is a store.
    """
    for source in sources:
        if not source.exists():
            raise InputError(f"there is nothing at {source}. Give a folder, a file or a zip.")
        if os.path.isfile(source / "store.json"):  # noqa: PTH113 - a closed folder has none either
            raise InputError(
                f"{source} is a store already. Give the scans that it was made of, or the store "
                "itself to the other verbs."
            )
    found: list[tuple[Path, str]] = []
    for source, prefix in zip(sources, _prefixes(sources), strict=True):
        if not source.is_dir():
            found.append((source, prefix + source.name))
            continue
        found += [
            (path, prefix + path.relative_to(source).as_posix()) for path in _files_in(source)
        ]
    return found


def _files_in(source: Path) -> Iterator[Path]:
    closed: list[Path] = []

    def keep(error: OSError) -> None:
        closed.append(Path(error.filename))

    for folder, folders, files in os.walk(source, onerror=keep):
        theirs = (one for one in folders if not (one.startswith(".") and one.endswith(STAGING)))
        folders[:] = sorted(theirs, key=natural)
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in [*links, *sorted(files, key=natural)])
    yield from closed


def look_at(path: Path, name: str) -> Iterator[Entry | Refusal]:
    """What the file of that name is, by its first bytes; an archive's members one by one."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            link = "a link to a folder; give the folder as a source"
            told = link if path.is_symlink() else "a folder that cannot be opened"
            yield Refusal(name, "refused", told)
            return
        if not stat.S_ISREG(status.st_mode):
            yield Refusal(name, "skipped", "not a regular file")
            return
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        yield Refusal(name, "refused", f"cannot be opened ({error.strerror})")
        return
    if head.startswith(b"PK\x03\x04"):
        yield from _look_inside(path, name, status)
        return
    yield _entry(head, Entry(name, path, "dicom", status.st_size, status.st_mtime_ns))


def _prefixes(sources: Sequence[Path]) -> list[str]:
    """What keeps the names of several sources apart: their own, numbered where shared."""
    if len(sources) == 1:
        return [""]
    names = [source.resolve().name if source.is_dir() else "files" for source in sources]
    return [
        f"{name}/" if names.count(name) == 1 else f"{number}-{name}/"
        for number, name in enumerate(names)
    ]


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A sort key that puts `slice10` after `slice9`, and numbers before text."""
    return tuple(
        (int(part[:18]), part) if place % 2 else (_TEXT, part)
        for place, part in enumerate(_DIGITS.split(name))
    )


def _look_inside(path: Path, name: str, status: os.stat_result) -> Iterator[Entry | Refusal]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if not one.filename.endswith("/")]
            if members and all(member.filename.endswith(".npy") for member in members):
                yield Entry(name, path, "medmnist", status.st_size, status.st_mtime_ns)
                return
            for member in sorted(members, key=lambda one: natural(one.filename)):
                found = Entry(
                    f"{name}/{member.filename}", path, "dicom", member.file_size,
                    status.st_mtime_ns, member.filename,
                )  # fmt: skip
                yield _look_at_member(archive, member, found)
    except (*_BROKEN, ValueError) as error:
        yield Refusal(name, "refused", f"a broken zip archive ({type(error).__name__})")


def _look_at_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, found: Entry
) -> Entry | Refusal:
    name = found.name
    inside = PurePosixPath(member.filename.replace("\\", "/"))
    if not inside.parts:
        return Refusal(name, "refused", "it has no name in the archive")
    if inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
        return Refusal(name, "refused", "its name leads out of the archive")
    if member.flag_bits & 1:
        return Refusal(name, "refused", "encrypted; unpack it first")
    ratio = member.file_size / max(member.compress_size, 1)
    if member.file_size > MAX_BYTES or (member.file_size > BOMB_BYTES and ratio > BOMB_RATIO):
        return Refusal(
            name, "refused", f"unpacks to {member.file_size / 2**20:.0f} MiB, {ratio:.0f} times"
        )
    try:
        with archive.open(member) as file:
            head = file.read(HEAD_BYTES)
    except Exception as error:  # as in `Entry.read`
        return Refusal(name, "refused", f"cannot be unpacked ({type(error).__name__})")
    if head.startswith(b"PK\x03\x04"):
        return Refusal(name, "refused", "an archive inside an archive; unpack it first")
    return _entry(head, found)


def _entry(head: bytes, entry: Entry) -> Entry | Refusal:
    kind = sniff(head)
    if kind is None:
        return Refusal(entry.name, "skipped", "empty" if not head else "no image that is read here")
    if entry.n_bytes > MAX_BYTES:
        return Refusal(
            entry.name, "refused", f"{entry.n_bytes / 2**30:.1f} GiB; at most 2 are read"
        )
    return entry._replace(kind=kind)


def sniff(head: bytes) -> Kind | None:
    """What the first `HEAD_BYTES` of a file say that it is; None for anything unknown."""
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*")):
        return "image"
    if head.startswith(b"NRRD000") or head.lstrip().startswith((b"ObjectType", b"NDims")):
        return "itk"
    if head.startswith(b"\x1f\x8b"):
        try:
            head = zlib.decompressobj(31).decompress(head, HEAD_BYTES)
        except zlib.error:
            return None
        return "nifti" if _is_nifti(head) else None
    if _is_nifti(head):
        return "nifti"
    # A data set without the preamble of DICOM PS3.10 begins with group 0002 or 0008.
    if head[:4] in (b"\x02\x00\x00\x00", b"\x02\x00\x01\x00") or (
        head[:2] in (b"\x08\x00", b"\x00\x08") and len(head) > 132
    ):
        return "dicom"
    return None


def _is_nifti(head: bytes) -> bool:
    return head[344:348] in (b"n+1\x00", b"ni1\x00") or head[4:8] == b"n+2\x00"
