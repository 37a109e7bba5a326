import pytest

from hounsfield.errors import ConfigError, MemoryShortError, WorkerError
from hounsfield.train.device import fabric
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
