"""Tasks that kill or hang their worker; in a module of their own so that workers can import it."""

import os
import signal
import time
from pathlib import Path

from hounsfield.data.convert import Job, Unit, convert
from hounsfield.data.refusal import Announce


def double(task: int, announce: Announce) -> int:
    """Twice the task; task 3 kills the worker, task 4 hangs it, as "file N"."""
    announce(f"file {task}")
    if task == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == 4:
        time.sleep(600)
    return 2 * task


def die_at_once(_task: int, _announce: Announce) -> int:
    """Die without a word."""
    os._exit(7)


def convert_or_die(job: Job, unit: Unit, announce: Announce) -> Path:
    """`convert`, but the file `005.dcm` of a trunk kills its reader."""

    def deadly(file: str) -> None:
        announce(file)
        if file.endswith("trunk/005.dcm"):
            os._exit(139)

    return convert(job, unit, deadly)


def convert_some(job: Job, unit: Unit, announce: Announce) -> Path:
    """`convert` that leaves a mark for every unit beside the staging folder."""
    mark = job.staging.parent / "marks" / f"{time.monotonic_ns()}"
    mark.parent.mkdir(exist_ok=True)
    mark.write_text(unit.entries[0].name)
    return convert(job, unit, announce)
