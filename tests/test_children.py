"""A process that works for another ends with it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """
import multiprocessing, time
from hounsfield.children import die_with_parent

def work(pipe):
    die_with_parent()
    pipe.send("at work")
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=work, args=(theirs,), daemon=True)
    child.start()
    ours.recv()
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be asked for this")
def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    assert state(child) not in "Z-"
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 30
    while state(child) not in "Z-" and time.monotonic() < until:
        time.sleep(0.01)
    assert state(child) in "Z-"


def state(process):
    """One letter, "Z" of a zombie; "-" where there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "-"
