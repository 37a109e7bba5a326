"""Progress bars with the time left; one line every ten seconds where there is no terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

LINE_EVERY_S = 10.0
_listener: Callable[[str], None] | None = None  # who hears this process's lines


class Bar(Protocol):
    """What the worker calls: `advance` when work is done, `note` with what is worth seeing."""

    def advance(self, amount: int = 1) -> None:
        """Count `amount` more units as done."""

    def note(self, text: str) -> None:
        """Show `text` beside the bar."""

    def say(self, text: str) -> None:
        """Put a line above the bar."""


@contextmanager
def bar(label: str, *, total: int, done: int = 0) -> Iterator[Bar]:
    """A bar over `total` units of which `done` are behind us already, on standard error.

    Of no units there is none to see.
    """
    console = Console(stderr=True)
    if _listener is not None or not console.is_terminal or not total:
        lines = _Lines(label, total, done, clock=time.monotonic)
        yield lines
        lines.close()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        # What the others leave of the line is the note's: it is cut, never the numbers.
        TextColumn(
            "{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
        ),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        yield _Rich(progress, label, total, done)


@contextmanager
def lines_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Inside the block the bars of this process are plain lines that `listener` is given."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


class _Rich:
    def __init__(self, progress: Progress, label: str, total: int, done: int) -> None:
        self.progress = progress
        self.task = progress.add_task(label, total=total, completed=done, note="")

    def advance(self, amount: int = 1) -> None:
        self.progress.advance(self.task, amount)

    def note(self, text: str) -> None:
        self.progress.update(self.task, note=text)

    def say(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)


class _Lines:
    """Plain lines for logs: at most one every `LINE_EVERY_S` seconds, none for short work."""

    def __init__(self, label: str, total: int, done: int, *, clock: Callable[[], float]) -> None:
        self.label, self.total, self.first, self.done = label, total, done, done
        self.clock = clock
        self.start = self.spoken = clock()
        self.told = done
        self.text = ""

    def advance(self, amount: int = 1) -> None:
        self.done += amount
        if self.clock() - self.spoken >= LINE_EVERY_S:
            self._say()

    def note(self, text: str) -> None:
        self.text = text

    def say(self, text: str) -> None:
        if _listener is not None:
            _listener(text)
            return
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        if self.clock() - self.start >= LINE_EVERY_S and self.told != self.done:
            self._say()

    def _say(self) -> None:
        self.spoken, self.told = self.clock(), self.done
        gone = self.spoken - self.start
        fresh = max(self.done - self.first, 1)
        left = gone / fresh * max(self.total - self.done, 0)
        line = f"{self.label}: {self.done}/{self.total}, {gone:.0f} s gone, {left:.0f} s left"
        self.say(line + (f", {self.text}" if self.text else ""))
