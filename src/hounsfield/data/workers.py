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
from typing import Any, TypeVar

from hounsfield.children import GUARD, die_with_parent
from hounsfield.data.refusal import Announce
from hounsfield.errors import HounsfieldError, WorkerError

T = TypeVar("T")
R = TypeVar("R")

FILE_LIMIT_S = 120.0  # a file that takes longer hangs
START_LIMIT_S = 600.0  # a worker that takes longer to begin hangs; busy machines are slow
TRIES_BEFORE_A_FILE = 3
NAME_BYTES = 2**18  # of a file's name; that of a zip's member can be 64 KiB long, before encoding

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Death:
    """A worker died or failed; `file` is what it had announced last, "" if nothing yet."""

    file: str
    reason: str


class _Slate:
    """Memory that a worker shares with its parent: the file that it reads, and since when."""

    def __init__(self) -> None:
        self._file = _SPAWN.RawArray("c", NAME_BYTES)
        self._since = _SPAWN.RawValue("d")

    def write(self, file: str) -> None:
        self._since.value = time.monotonic()  # first, or the parent sees a new file that hangs
        self._file.value = os.fsencode(file)

    @property
    def file(self) -> str:
        return os.fsdecode(self._file.value)

    @property
    def seconds(self) -> float:
        """How long ago it was written."""
        return time.monotonic() - self._since.value


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    slate: _Slate
    busy: bool = False
    task: Any = None


class Staff:
    """Worker processes that stay from one kind of task to the next; they end with the block.

    Args:
        workers: How many processes at most.
        file_limit_s: A worker is killed that takes longer over a file that it has announced.
    """

    def __init__(self, workers: int, *, file_limit_s: float = FILE_LIMIT_S) -> None:
        self.workers = workers
        self.file_limit_s = file_limit_s
        self._staff: list[_Worker] = []

    def __enter__(self) -> "Staff":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._staff:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()
        self._staff.clear()

    def each(
        self, function: Callable[[T, Announce], R], tasks: deque[T]
    ) -> Iterator[tuple[T, R | Death]]:
        """Every task with its result, or with the death of its worker, as they come.

        The caller may add to `tasks` while it iterates, for example what is left of a task without
        the file that killed its worker, and iterates to the end.

        Args:
            function: Of a task and `announce`; a function of a module, so that workers find it.
            tasks: Emptied from the left.

        Raises:
            WorkerError: Workers die again and again before they have announced a file.
        """
        deaths = 0
        while tasks or any(worker.busy for worker in self._staff):
            self._hand_out(function, tasks)
            for worker in _ready(self._staff, self.file_limit_s):
                outcome, task = _listen(worker), worker.task
                worker.busy = False
                if isinstance(outcome, Death):
                    if not worker.process.is_alive():
                        self._staff.remove(worker)
                    deaths = 0 if outcome.file else deaths + 1
                    if deaths >= TRIES_BEFORE_A_FILE:
                        failed = (worker.process.exitcode or 0) > 0  # it was not killed
                        mend = GUARD if failed else "Free memory or give fewer --workers."
                        raise WorkerError(
                            f"worker processes die before they read a file ({outcome.reason}). "
                            f"{mend}"
                        )
                yield task, outcome

    def _hand_out(self, function: Callable[[T, Announce], R], tasks: deque[T]) -> None:
        """Give tasks to idle workers, and hire as many as there is work for."""
        for worker in self._staff:
            if tasks and not worker.busy:
                _give(worker, function, tasks.popleft())
        while tasks and len(self._staff) < self.workers:
            self._staff.append(_hire())
            _give(self._staff[-1], function, tasks.popleft())


def _hire() -> _Worker:
    slate = _Slate()
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_work, args=(theirs, slate), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours, slate)


def _give(worker: _Worker, function: Callable[[T, Announce], Any], task: T) -> None:
    worker.busy, worker.task = True, task
    worker.slate.write("")
    with suppress(OSError):  # it died; its end of file will say so
        worker.pipe.send((function, task))


def _ready(staff: list[_Worker], file_limit_s: float) -> list[_Worker]:
    """The busy workers that have something to say or are over their time."""
    busy = [worker for worker in staff if worker.busy]
    speaking = wait([worker.pipe for worker in busy], timeout=1.0)
    return [worker for worker in busy if worker.pipe in speaking or _late(worker, file_limit_s)]


def _late(worker: _Worker, file_limit_s: float) -> bool:
    return worker.slate.seconds > (file_limit_s if worker.slate.file else START_LIMIT_S)


def _listen(worker: _Worker) -> Any:
    """A result, or a `Death`."""
    if not worker.pipe.poll():  # it is over its time
        worker.process.kill()
        return _gone(worker, f"its reader hung for {worker.slate.seconds:.0f} s")
    try:
        kind, content = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        return _gone(worker, f"its reader died (exit code {worker.process.exitcode})")
    if kind == "error":
        raise content
    return Death(worker.slate.file, content) if kind == "failed" else content


def _gone(worker: _Worker, reason: str) -> Death:
    worker.process.join()
    worker.pipe.close()
    return Death(worker.slate.file, reason)


def _work(pipe: Connection, slate: _Slate) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    os.environ["OMP_NUM_THREADS"] = "1"
    while True:
        try:
            function, task = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            result = ("done", function(task, slate.write))
        except HounsfieldError as error:
            result = ("error", error)
        except MemoryError:
            os._exit(os.EX_SOFTWARE)
        except Exception as error:  # no reader foresaw it; the files around it may be sound
            result = ("failed", f"its reader failed ({type(error).__name__})")
        pipe.send(result)
