"""One function in several processes, with errors that come back as they were raised."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hounsfield import errors
from hounsfield.errors import HounsfieldError, InterruptedRun, TrainingError, WorkerError
from hounsfield.train.interrupt import passing_on

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# All processes raise these at the same step; any other is one process's own.
_AGREED = (TrainingError, InterruptedRun)
_RAISED = re.compile(r"^hounsfield\.errors\.(\w+): (.+)$", re.MULTILINE)


def launch(fabric: "Fabric", work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(fabric, *arguments)` in each of the fabric's processes.

    Args:
        fabric: Says how many; one runs right here.
        work: A function of a module, so that other processes find it.
        *arguments: Travel by pickle where there are several processes.

    Raises:
        HounsfieldError: What `work` raised.
        InterruptedRun: Ctrl-C or SIGTERM, before the processes had begun to listen too.
        WorkerError: A process died, or raised what is no error of ours.
    """
    if fabric.strategy.launcher is None:
        fabric.launch(work, *arguments)
        return
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

    with passing_on() as interrupt:
        try:
            agreed = fabric.launch(_caught, work, arguments)
        except ProcessRaisedException as error:
            raise raised_in(error.error_index, str(error)) from None
        except ProcessExitedException as error:
            if interrupt.asked:
                raise InterruptedRun(
                    "stopped before the next step. Run the same command again to go on."
                ) from None
            raise WorkerError(
                f"training process {error.error_index} died: {error}. "
                "Run the same command again to go on from the last checkpoint."
            ) from None
    if agreed is not None:
        raise agreed


def _caught(
    fabric: "Fabric", work: Callable[..., None], arguments: tuple[Any, ...]
) -> HounsfieldError | None:
    try:
        work(fabric, *arguments)
    except _AGREED as error:
        return error
    return None


def raised_in(process: int, trace: str) -> HounsfieldError:
    """The error of ours whose traceback is `trace`; one of a worker where it is none of ours."""
    found = _RAISED.search(trace)
    if found is not None:
        kind = getattr(errors, found[1])
        return kind(found[2])
    last = trace.strip().splitlines()[-1]
    return WorkerError(f"training process {process} failed: {last}")
