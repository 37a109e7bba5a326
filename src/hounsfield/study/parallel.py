"""A study's parts side by side: a process each, so that one that dies takes only its own along."""

import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from hounsfield.children import GUARD, die_with_parent
from hounsfield.errors import DiskError, InterruptedRun, WorkerError
from hounsfield.progress import Bar, lines_to
from hounsfield.study.cell_folder import Ended, give_up
from hounsfield.study.plan import Cell, Plan
from hounsfield.study.pretraining import Pretraining
from hounsfield.study.worker import Worker
from hounsfield.wording import plural

Part = Pretraining | Cell


@dataclass(frozen=True)
class Said:
    """A line that a process would have put on its standard error."""

    text: str


@dataclass(frozen=True)
class Died:
    """The last word of a process, which another says for it."""

    how: str


def one_by_one(plan: Plan, folder: Path, parts: Sequence[Part]) -> Generator[Ended, None, None]:
    """Run `parts` in this process; each gives word when it has ended."""
    worker = Worker(plan, folder)
    for part in parts:
        yield worker.run(part)


def side_by_side(
    plan: Plan, folder: Path, parts: Sequence[Part], *, jobs: int, bar: Bar
) -> Generator[Ended, None, None]:
    """Run `parts` in `jobs` processes; each gives word when it has ended, in any order.

    A process that dies fails the part that it had in hand, and another takes its place. When the
    iterator is closed, all processes are ended: cells are written whole and pre-trainings save
    where they are, so nothing is torn.

    Args:
        plan: What the parts are of.
        folder: The study's.
        parts: None of them needs another.
        jobs: Processes, as far as there are parts; they share this process's threads.
        bar: Where the lines go that the processes have to say.

    Raises:
        DiskError: A process could not write.
        WorkerError: No process came up.
    """
    waiting = deque(parts)
    jobs = min(jobs, len(parts))
    hands: list[_Hand] = []

    def hire() -> None:
        hands.append(_Hand(plan, folder, threads=max(1, torch.get_num_threads() // jobs)))

    with ExitStack() as stack:
        stack.callback(_dismiss, hands)
        for _ in range(jobs):
            hire()
        for hand, word in _words(hands):
            if isinstance(word, Said):
                bar.say(word.text)
            elif isinstance(word, DiskError):
                raise word
            elif not isinstance(word, Died):
                if isinstance(word, Ended):
                    yield word
                hand.give(waiting.popleft() if waiting else None)
            elif hand.part is not None:
                yield give_up(
                    hand.part, plan, folder, reason=word.how, exit_code=WorkerError.exit_code
                )
                if waiting:
                    hire()
    if waiting:
        raise WorkerError(
            f"the processes died before they began; not run: {plural(len(waiting), 'part')} of the "
            f"study. {GUARD} Else look for the cause above, or run it again with --jobs 1."
        )


def _words(hands: Sequence["_Hand"]) -> Iterator[tuple["_Hand", Any]]:
    """What the processes say, as it comes, until all have ended; more may join them meanwhile."""
    ended: set[Connection] = set()
    while there := [hand for hand in hands if hand.pipe not in ended]:
        speaking = wait([hand.pipe for hand in there])
        for hand in there:
            if hand.pipe in speaking:
                word = hand.listen()
                if isinstance(word, Died):
                    ended.add(hand.pipe)
                yield hand, word


class _Hand:
    """A process and the pipe to it."""

    def __init__(self, plan: Plan, folder: Path, *, threads: int) -> None:
        context = get_context("spawn")  # a forked process would inherit torch's broken threads
        self.pipe, far = context.Pipe()
        self.part: Part | None = None
        self.process: BaseProcess = context.Process(
            target=_serve, args=(plan, folder, far, threads), daemon=True
        )
        self.process.start()
        far.close()

    def give(self, part: Part | None) -> None:
        self.part = part
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died; its last word says so
            self.pipe.send(None if part is None else part.hash)

    def listen(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):  # a reset: it left what it was given unread
            self.process.join()
        code = self.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Died(f"its process died ({how}); if memory ran out, use fewer --jobs")


def _dismiss(hands: Sequence[_Hand]) -> None:
    """End all at once: each saves first, and nobody waits for one after another."""
    for hand in hands:
        hand.process.terminate()
    for hand in hands:
        hand.process.join()
        hand.pipe.close()


def _serve(plan: Plan, folder: Path, pipe: Connection, threads: int) -> None:
    """A process's life: say that it is there, then run a part for each name that it is given."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    torch.set_num_threads(threads)
    worker = Worker(plan, folder)
    parts: dict[str, Part] = {**plan.pretrainings, **{cell.hash: cell for cell in plan.cells}}
    pipe.send(None)
    with lines_to(lambda text: pipe.send(Said(text))), suppress(EOFError, InterruptedRun):
        while (name := pipe.recv()) is not None:  # EOFError: the parent is gone
            try:
                pipe.send(worker.run(parts[name]))
            except DiskError as error:
                pipe.send(error)
