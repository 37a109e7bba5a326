"""Files that stay out, each with its reason: one that cannot be read does not stop the others."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from hounsfield.errors import NotForUsError, ReadError

Status = Literal["skipped", "duplicate", "refused"]


@dataclass(frozen=True)
class Refusal:
    """A file that stays out of the store: sound but not for us, known already, or not readable.

    Attributes:
        file: Its name.
        status: Which of the three.
        reason: In words that name nobody and no file.
        other: The file that a duplicate repeats.
    """

    file: str
    status: Status
    reason: str
    other: str = ""


Refuse = Callable[[Refusal], None]
Announce = Callable[[str], None]  # a reader announces every file before it touches it


class Named(Protocol):
    """A file, as far as it matters here."""

    @property
    def name(self) -> str:
        """What messages call it."""


F = TypeVar("F", bound=Named)
T = TypeVar("T")


def read_each(
    read: Callable[[F], T], files: Iterable[F], refuse: Refuse, announce: Announce
) -> Iterator[tuple[F, T]]:
    """Every file that can be read, with what `read` makes of it; the others are refused."""
    for file in files:
        announce(file.name)
        try:
            made = read(file)
        except NotForUsError as error:
            refuse(Refusal(file.name, "skipped", str(error)))
        except ReadError as error:
            refuse(Refusal(file.name, "refused", str(error)))
        else:
            yield file, made
