"""Every error that a user can meet, and the exit code that it ends with.

    HounsfieldError
    ├── InputError            2   what was given is not right; nothing was written
    │   ├── ConfigError           a config file or an override
    │   ├── LabelError            a label file, or labels that cannot serve a task
    │   ├── ReadError             a file that is not a readable axial CT image
    │   │   └── NotForUsError         a sound file that is something else
    │   ├── StoreError            a store that is missing, foreign or damaged
    │   ├── LeakError             a patient on both sides of a border
    │   ├── WeightsError          a checkpoint that does not fit
    │   └── OutputError           an output folder that belongs to something else
    ├── TrainingError         3   training went wrong; the last good checkpoint is kept
    │   ├── DivergedError         the loss or a gradient is not finite
    │   └── CollapsedError        the features no longer tell images apart
    ├── MachineError          4   the machine failed, not the input
    │   ├── DiskError             full, or not writable
    │   ├── MemoryShortError      out of memory, on the device or off it
    │   ├── WorkerError           a worker process died
    │   └── BusyError             another process holds the output
    └── InterruptedRun      130   stopped by the user; the state is saved

A message says what was got, what is allowed and what to do, in that order.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

LISTED = 24  # names in a message


class HounsfieldError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class InputError(HounsfieldError):
    """What was given is not right; nothing was written."""

    exit_code = 2


class ConfigError(InputError):
    """A config file or an override is not right."""


class LabelError(InputError):
    """A label file is not right, or its labels cannot serve the task."""


class ReadError(InputError):
    """A file is not a readable axial CT image."""


class NotForUsError(ReadError):
    """A file is sound, and is something else than an axial CT image."""


class StoreError(InputError):
    """A store is missing, foreign or damaged."""


class LeakError(InputError):
    """A patient stands on both sides of a border."""


class WeightsError(InputError):
    """A checkpoint does not fit the network."""


class OutputError(InputError):
    """An output folder belongs to something else."""


class TrainingError(HounsfieldError):
    """Training went wrong; the last good checkpoint is kept."""

    exit_code = 3


class DivergedError(TrainingError):
    """The loss or a gradient is not finite."""


class CollapsedError(TrainingError):
    """The features no longer tell images apart."""


class MachineError(HounsfieldError):
    """The machine failed, not the input."""

    exit_code = 4


class DiskError(MachineError):
    """The disk is full or not writable."""


class MemoryShortError(MachineError):
    """Memory ran out, on the device or off it."""


class WorkerError(MachineError):
    """A worker process died."""


class BusyError(MachineError):
    """Another process holds the output."""


class InterruptedRun(HounsfieldError):  # noqa: N818 - not a fault, a wish
    """The user stopped the work; the state is saved."""

    exit_code = 130


def first_line(error: Exception) -> str:
    """What an error of a library says first; its kind where it says nothing."""
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__


def one_of(what: str, got: str, allowed: Iterable[str]) -> str:
    """One sentence: what was got, the nearest allowed names first, then all of them.

    Of a long list the nearest names are enough; where there are none it is cut.
    """
    names = sorted(set(allowed))
    near = get_close_matches(got, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    if len(names) <= LISTED:
        return f"unknown {what} {got!r}.{hint} Allowed: {', '.join(names)}."
    some = "" if near else f", the first: {', '.join(names[:LISTED])}"
    return f"unknown {what} {got!r}.{hint} {len(names):,} are known{some}."
