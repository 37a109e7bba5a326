"""Ctrl-C and SIGTERM as a question that the loop answers between two steps."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


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
    if not active or threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        interrupt.asked = True
        signal.signal(number, before[signal.Signals(number)])

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, note) for kind in kinds}
    try:
        yield interrupt
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])


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

    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, pass_on) for kind in kinds}
    try:
        yield interrupt
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])
