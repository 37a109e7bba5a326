"""What every process does that was started to work for another."""

import ctypes
import multiprocessing
import os
import signal
import sys

GUARD = (
    'A script must be a file, with its work below `if __name__ == "__main__":`, because every '
    "process that it starts imports it."
)  # what to do where processes fail before they have begun

_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


def die_with_parent() -> None:
    """End this process when the one that started it ends, however that happens.

    A process whose parent was killed would go on writing into an output that its successor has in
    hand. Only Linux can be asked for this; elsewhere such a process ends with its task.
    """
    parent = multiprocessing.parent_process()
    if sys.platform != "linux" or parent is None:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:  # it has died before it was asked for
        os._exit(os.EX_OSERR)
