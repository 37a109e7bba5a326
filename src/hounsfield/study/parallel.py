"""Cells side by side: a process each, so that one that dies takes only its own cell along."""

import signal
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import ExitStack, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from hounsfield.errors import DiskError, WorkerError
from hounsfield.study.plan import Cell, Plan
from hounsfield.study.worker import Ended, Worker


def one_by_one(plan: Plan, folder: Path, cells: Sequence[Cell]) -> Generator[Ended, None, None]:
    """Run `cells` in this process; each gives word when it has ended."""
    worker = Worker(plan, folder)
    for cell in cells:
        yield worker.run(cell)


def side_by_side(
    plan: Plan, folder: Path, cells: Sequence[Cell], *, jobs: int
) -> Generator[Ended, None, None]:
    """Run `cells` in `jobs` processes; each gives word when it has ended, in any order.

    A process that dies fails the cell that it had in hand, and another takes its place. When the
    iterator is closed, all processes are ended; cells are written whole, so nothing is torn.

    Raises:
        DiskError: A process could not write.
        WorkerError: No process came up.
    """
    waiting = deque(cells)
    with ExitStack() as stack:
        hands: dict[Connection, _Hand] = {}

        def hire() -> None:
            hand = _Hand(plan, folder, threads=max(1, torch.get_num_threads() // jobs))
            stack.callback(hand.dismiss)
            hands[hand.pipe] = hand

        for _ in range(min(jobs, len(waiting))):
            hire()
        while hands:
            for pipe in wait(list(hands)):
                hand = hands[pipe]  # type: ignore[index]
                try:
                    word = hand.pipe.recv()
                except EOFError:
                    del hands[hand.pipe]
                    if hand.cell is not None:
                        yield Worker(plan, folder).give_up(
                            hand.cell, hand.obituary(), exit_code=WorkerError.exit_code
                        )
                        if waiting:
                            hire()
                    continue
                if isinstance(word, DiskError):
                    raise word
                if isinstance(word, Ended):
                    yield word
                hand.give(waiting.popleft() if waiting else None)
    if waiting:
        raise WorkerError(
            f"the processes for the cells died before they began; {len(waiting)} cells are not "
            "run. Look for the cause above, or run the same command again with --jobs 1."
        )


class _Hand:
    """A process and the pipe to it."""

    def __init__(self, plan: Plan, folder: Path, *, threads: int) -> None:
        context = get_context("spawn")  # a forked process would inherit torch's broken threads
        self.pipe, far = context.Pipe()
        self.cell: Cell | None = None
        self.process: BaseProcess = context.Process(
            target=_serve, args=(plan, folder, far, threads), daemon=True
        )
        self.process.start()
        far.close()

    def give(self, cell: Cell | None) -> None:
        self.cell = cell
        with suppress(BrokenPipeError):  # it has died; the next word from it is the end of file
            self.pipe.send(None if cell is None else cell.hash)

    def obituary(self) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"its process died ({how}); if memory ran out, use fewer --jobs"

    def dismiss(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _serve(plan: Plan, folder: Path, pipe: Connection, threads: int) -> None:
    """A process's life: say that it is there, then run a cell for each name that it is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    torch.set_num_threads(threads)
    worker = Worker(plan, folder)
    cells = {cell.hash: cell for cell in plan.cells}
    pipe.send(None)
    with suppress(EOFError):  # the parent is gone
        while (name := pipe.recv()) is not None:
            try:
                pipe.send(worker.run(cells[name]))
            except DiskError as error:
                pipe.send(error)
