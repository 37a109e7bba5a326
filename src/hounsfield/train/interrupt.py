"""Ctrl-C and SIGTERM as a question that the loop answers between two steps."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType

KINDS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Interrupt:
    """Whether somebody has asked for the end."""

    asked: bool = False


@contextmanager
def listening(*, active: bool = True) -> Iterator[Interrupt]:
    """Note SIGINT and SIGTERM inside the block instead of dying of them.

    A second signal of the kind acts at once, as it would have outside. Only the main thread can
    listen; elsewhere, and where not `active`, signals stay what they were.
    """
    interrupt = Interrupt()
    outside = {kind: signal.getsignal(kind) for kind in KINDS}

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        interrupt.asked = True
        signal.signal(number, outside[signal.Signals(number)])

    with _answered(note) if active else nullcontext():
        yield interrupt


@contextmanager
def passing_on() -> Iterator[Interrupt]:
    """Pass SIGINT and SIGTERM on to this process's children and wait for what they make of it."""
    interrupt = Interrupt()

    def pass_on(number: int, frame: FrameType | None) -> None:
        del number, frame
        interrupt.asked = True
        children = multiprocessing.active_children()
        if not children:  # none has begun; there is nothing to wait for
            raise KeyboardInterrupt
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, signal.SIGTERM)

    with _answered(pass_on):
        yield interrupt


@contextmanager
def _answered(answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have the signals inside the block answered by `answer`, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.signal(kind, answer) for kind in KINDS}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
