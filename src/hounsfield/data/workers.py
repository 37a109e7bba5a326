"""Worker processes that may die: a death costs the file that was being read, not the run."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from hounsfield.data.volume import Announce
from hounsfield.errors import HounsfieldError, WorkerError

T = TypeVar("T")
R = TypeVar("R")

FILE_LIMIT_S = 120.0  # a file that takes longer hangs
START_LIMIT_S = 600.0  # a worker that takes longer to begin hangs; busy machines are slow
TRIES_BEFORE_A_FILE = 3


@dataclass(frozen=True)
class Death:
    """A worker died or failed; `file` is what it had announced last, "" if nothing yet."""

    file: str
    reason: str


@dataclass
class _Worker(Generic[T]):
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    task: T | None = None
    file: str = ""
    since: float = 0.0


def each(
    function: Callable[[T, Announce], R],
    tasks: deque[T],
    *,
    workers: int,
    file_limit_s: float = FILE_LIMIT_S,
) -> Iterator[tuple[T, R | Death]]:
    """Every task with its result, or with the death of its worker, as they come.

    The caller may add to `tasks` while it iterates, for example what is left of a task without
    the file that killed its worker.

    Args:
        function: Of a task and `announce`; a function of a module, so that workers find it.
        tasks: Emptied from the left.
        workers: How many processes.
        file_limit_s: A worker is killed that takes longer over a file that it has announced.

    Raises:
        WorkerError: Workers die again and again before they have announced a file.
    """
    staff: list[_Worker[T]] = []
    deaths = 0
    try:
        while tasks or any(worker.task is not None for worker in staff):
            while tasks and len(staff) < workers:
                staff.append(_hire(function))
            for worker in staff:
                if worker.task is None and tasks:
                    _give(worker, tasks.popleft())
            for worker in _ready(staff, file_limit_s):
                outcome = _listen(worker, file_limit_s)
                if outcome is None:
                    continue
                task = worker.task
                assert task is not None  # noqa: S101 - only busy workers are ready
                worker.task = None
                if isinstance(outcome, Death):
                    if not worker.process.is_alive():
                        staff.remove(worker)
                    deaths = 0 if outcome.file else deaths + 1
                    if deaths >= TRIES_BEFORE_A_FILE:
                        raise WorkerError(
                            f"worker processes die before they read a file ({outcome.reason}). "
                            "Free memory or give fewer --workers."
                        )
                yield task, outcome
    finally:
        for worker in staff:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def _hire(function: Callable[[T, Announce], R]) -> _Worker[T]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, function), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker[T], task: T) -> None:
    worker.task, worker.file, worker.since = task, "", time.monotonic()
    with suppress(OSError):  # it died; its end of file will say so
        worker.pipe.send(task)


def _ready(staff: list[_Worker[T]], file_limit_s: float) -> list[_Worker[T]]:
    """The busy workers that have something to say or are over their time."""
    busy = [worker for worker in staff if worker.task is not None]
    speaking = wait([worker.pipe for worker in busy], timeout=1.0)
    return [worker for worker in busy if worker.pipe in speaking or _late(worker, file_limit_s)]


def _late(worker: _Worker[T], file_limit_s: float) -> bool:
    limit = file_limit_s if worker.file else START_LIMIT_S
    return time.monotonic() - worker.since > limit


def _listen(worker: _Worker[T], file_limit_s: float) -> Any:
    """A result, a `Death`, or None where the worker only announced a file."""
    try:
        while worker.pipe.poll():
            kind, content = worker.pipe.recv()
            if kind == "file":
                worker.file, worker.since = content, time.monotonic()
            elif kind == "error":
                raise content
            elif kind == "failed":
                return Death(worker.file, content)
            else:
                return content
    except (EOFError, ConnectionResetError):
        worker.process.join()
        worker.pipe.close()
        return Death(worker.file, f"its reader died (exit code {worker.process.exitcode})")
    if _late(worker, file_limit_s):
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        return Death(worker.file, f"its reader hung for {time.monotonic() - worker.since:.0f} s")
    return None


def _work(pipe: Connection, function: Callable[[Any, Announce], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    os.environ["OMP_NUM_THREADS"] = "1"

    def announce(file: str) -> None:
        pipe.send(("file", file))

    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            result = ("done", function(task, announce))
        except HounsfieldError as error:
            result = ("error", error)
        except MemoryError:
            os._exit(os.EX_SOFTWARE)
        except Exception as error:  # no reader foresaw it; the files around it may be sound
            result = ("failed", f"its reader failed ({type(error).__name__})")
        pipe.send(result)
