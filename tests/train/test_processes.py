import multiprocessing
import os
import signal
import threading
import time

import pytest

from hounsfield.errors import ConfigError, InterruptedRun, MemoryShortError, WorkerError
from hounsfield.train.device import fabric
from hounsfield.train.interrupt import passing_on
from hounsfield.train.processes import launch, raised_in

WORK = """
import os

def dies(fabric):
    if fabric.global_rank == 1:
        os._exit(9)
    fabric.barrier()
"""


def test_a_process_that_dies_is_named_and_takes_the_others_along(tmp_path, monkeypatch):
    (tmp_path / "its_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    from its_work import dies

    with pytest.raises(WorkerError, match=r"training process 1 died.*exit code 9.*same command"):
        launch(fabric("cpu", processes=2), dies)


def test_ctrl_c_before_any_process_has_begun_acts_at_once():
    with pytest.raises(KeyboardInterrupt), passing_on():
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_before_the_processes_listen_is_no_fault(tmp_path, monkeypatch):
    (tmp_path / "its_wait.py").write_text("import time\n\ndef waits(fabric):\n    time.sleep(60)\n")
    monkeypatch.syspath_prepend(tmp_path)
    from its_wait import waits

    def strike():
        while len(multiprocessing.active_children()) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=strike, daemon=True).start()
    with pytest.raises(InterruptedRun, match=r"before the next step.*same command again"):
        launch(fabric("cpu", processes=2), waits)


def test_an_error_in_another_process_comes_back_as_it_was_raised():
    trace = "Traceback ...\nhounsfield.errors.MemoryShortError: the GPU is out of memory. Lower x."
    error = raised_in(1, trace)
    assert type(error) is MemoryShortError
    assert str(error) == "the GPU is out of memory. Lower x."
    other = raised_in(1, "Traceback ...\nValueError: no such thing")
    assert type(other) is WorkerError
    assert str(other) == "training process 1 failed: ValueError: no such thing"


def test_one_process_works_right_here():
    def refuses(fabric, word):
        raise ConfigError(f"{word} from {fabric.world_size}")

    with pytest.raises(ConfigError, match="hello from 1"):
        launch(fabric("cpu"), refuses, "hello")
