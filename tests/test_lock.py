"""Two processes on one output: the second is refused with the first's id, and leaves nothing."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hounsfield import lock
from hounsfield.cli import app
from hounsfield.errors import BusyError, OutputError
from hounsfield.lock import held, new_folder, reserved
from long_work import small_home

ME = re.escape(f"in use by process {os.getpid()} on {os.uname().nodename}. Wait until it ends")

HOLDER = """
import sys, time
from pathlib import Path
from hounsfield.lock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


COUNTER = """
import sys, time
from pathlib import Path
from hounsfield.errors import BusyError
from hounsfield.lock import reserved
counter, done = Path(sys.argv[1]) / "counter", 0
while done < 50:
    try:
        with reserved(counter.with_name("out")):
            counter.write_text(str(int(counter.read_text()) + 1))
            done += 1
    except BusyError:
        time.sleep(0.0001)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return small_home(tmp_path_factory.mktemp("home"))


def verbs(home, out):
    """For each verb that writes an output its arguments, and what a first process holds."""
    store, key = home / "store", ("--key", home / "key")
    return {
        "phantom": (("phantom", out), reserved(out)),
        "ingest": (
            ("ingest", home / "archive", "--out", out, *key),
            held(out.parent / f".{out.name}.ingest"),
        ),
        "thin": (("thin", store, "--out", out), reserved(out)),
        "pretrain": (("pretrain", home / "pretrain.toml", "--out", out), held(out)),
        "study": (("study", home / "study.toml", "--out", out), held(out)),
        "report": (("report", home / "study", "--out", out), held(out)),
        "export": (("export", home / "run", "--out", out), reserved(out)),
        "finetune": (
            ("finetune", "--weights=scratch", "--store", store, "--task=lesion", "--out", out),
            held(out),
        ),
        "predict": (("predict", home / "run", home / "archive", "--out", out, *key), reserved(out)),
    }


@pytest.mark.parametrize("verb", verbs(Path(), Path("out")))
def test_the_second_process_on_an_output_is_told_who_was_first(home, tmp_path, verb):
    command, first = verbs(home, tmp_path / "out")[verb]
    with first:
        told = CliRunner().invoke(app, [str(argument) for argument in command])
        assert isinstance(told.exception, BusyError), told.output
        assert re.search(ME, str(told.exception))
        assert told.exception.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_its_process_however_that_dies(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    first.stdout.readline()
    with pytest.raises(BusyError, match=f"process {first.pid} "), held(tmp_path):
        pass
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert (tmp_path / ".lock").exists()
    with held(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"{os.getpid()} ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path):
    with pytest.raises(KeyError), held(tmp_path / "a/b"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with held(tmp_path / "a/b"):
        (tmp_path / "a/b/result").write_text("dear")
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["result"]


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "a/b") as folder:
        (folder / "half").with_suffix(".txt").rename(folder / "whole")
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "a/b") as folder:
        (folder / "all").write_text("dear")
        assert not (tmp_path / "a/b").exists()
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["b", "all"]
    with pytest.raises(OutputError, match="exists already"), new_folder(tmp_path / "a/b"):
        pass


def test_an_output_that_another_process_ended_a_moment_ago_is_not_written_again(
    tmp_path, monkeypatch
):
    out, taken = tmp_path / "out", lock._taken

    def after_another(file, output):
        out.write_text("dear")
        return taken(file, output)

    monkeypatch.setattr(lock, "_taken", after_another)
    with pytest.raises(OutputError, match="exists already"), reserved(out):
        out.write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert out.read_text() == "dear"


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path):
    for name in (".out.0a1b2c3d.part", ".out.lock", ".other.0a1b2c3d.part"):
        (tmp_path / name).write_text("torn")
    with reserved(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".other.0a1b2c3d.part"]


def test_many_processes_never_hold_one_lock_together(tmp_path):
    """Holders remove their file, so a lock may be taken on a file that is gone already."""
    (tmp_path / "counter").write_text("0")
    counters = [subprocess.Popen([sys.executable, "-c", COUNTER, tmp_path]) for _ in range(4)]
    assert [counter.wait() for counter in counters] == [0] * 4
    assert (tmp_path / "counter").read_text() == "200"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]
