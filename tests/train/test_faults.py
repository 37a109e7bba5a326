"""Faults of the machine: each ends with a line that says what to do, and nothing is lost."""

import errno
import resource
import signal
import time
from pathlib import Path

import pytest
import torch

from full_disk import files_of_at_most
from hounsfield.errors import (
    DiskError,
    InterruptedRun,
    MemoryShortError,
    OutputError,
    WorkerError,
)
from hounsfield.lock import held
from hounsfield.methods.base import Step
from hounsfield.train import checkpoint


def at_batch(toy, number, act):
    """Batches of which number `number` does something first."""

    class Acting(toy.Numbers):
        def prefetch(self, first, last):
            for step, batch in enumerate(super().prefetch(first, last), start=first):
                if step == number:
                    act()
                yield batch

    return Acting()


def assert_goes_on_as_if_nothing_had_been(toy, folder, whole):
    undisturbed, again = toy.Model(), toy.Model()
    toy.train(undisturbed, whole)
    toy.train(again, folder)
    assert torch.equal(toy.weights(undisturbed), toy.weights(again))
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_signal_in_the_last_step_leaves_only_the_last_line_to_write(toy, tmp_path):
    config = toy.QUIET.model_copy(update={"log_every": 5})
    stopped, again, undisturbed = toy.Model(), toy.Model(), toy.Model()
    batches = at_batch(toy, 11, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(InterruptedRun, match="after step 12 of 12"):
        toy.train(stopped, tmp_path / "run", batches=batches, config=config)
    toy.train(again, tmp_path / "run", config=config)
    toy.train(undisturbed, tmp_path / "whole", config=config)
    assert torch.equal(toy.weights(again), toy.weights(undisturbed))
    lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("run", "whole")]
    assert lines[0] == lines[1]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(toy, tmp_path, kind):
    before = signal.getsignal(kind)
    batches = at_batch(toy, 6, lambda: signal.raise_signal(kind))
    with pytest.raises(InterruptedRun, match=r"after step 7 of 12.*same command again"):
        toy.train(toy.Model(), tmp_path / "run", batches=batches)
    assert signal.getsignal(kind) is before
    assert checkpoint.newest(tmp_path / "run/checkpoints", say=print)[1] == 7
    assert_goes_on_as_if_nothing_had_been(toy, tmp_path / "run", tmp_path / "whole")


def test_a_second_signal_ends_at_once(toy, tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        toy.train(toy.Model(), tmp_path / "run", batches=at_batch(toy, 6, twice))
    assert_goes_on_as_if_nothing_had_been(toy, tmp_path / "run", tmp_path / "whole")


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(
    toy, tmp_path, capsys
):
    toy.train(toy.Model(), tmp_path / "run")
    older, newest = sorted((tmp_path / "run/checkpoints").iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert_goes_on_as_if_nothing_had_been(toy, tmp_path / "run", tmp_path / "whole")
    said = capsys.readouterr().err
    assert f"{newest} is damaged" in said
    assert older.name.startswith("step-000000008.")


def test_two_checkpoints_are_kept(tmp_path):
    for step in range(5):
        checkpoint.save(tmp_path, {"step": step}, step=step)
    names = sorted(path.name.split(".")[0] for path in tmp_path.iterdir())
    assert names == ["step-000000003", "step-000000004"]


def test_a_disk_that_fills_up_loses_nothing(toy, tmp_path):
    short = at_batch(
        toy, 6, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
    )
    with files_of_at_most(10**9), pytest.raises(DiskError, match="Free space there"):
        toy.train(toy.Model(), tmp_path / "run", batches=short)
    kept = [path.name[:14] for path in (tmp_path / "run/checkpoints").iterdir()]
    assert kept == ["step-000000004"]
    assert_goes_on_as_if_nothing_had_been(toy, tmp_path / "run", tmp_path / "whole")


def test_a_line_that_finds_no_space_ends_the_run_with_a_word(toy, tmp_path, monkeypatch):
    opened = type(tmp_path).open

    def full(path, mode="r", **options):
        if mode == "a":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "open", full)
        with pytest.raises(DiskError, match="No space left"):
            toy.train(toy.Model(), tmp_path / "run")
    assert_goes_on_as_if_nothing_had_been(toy, tmp_path / "run", tmp_path / "whole")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with (
        pytest.raises(DiskError, match="cannot write /sys/hounsfield"),
        held(Path("/sys/hounsfield")),
    ):
        pass
    (tmp_path / "file").write_text("dear")
    with pytest.raises(OutputError, match="in, a file"), held(tmp_path / "file"):
        pass
    with pytest.raises(OutputError, match="in, a file"), held(tmp_path / "file/deeper"):
        pass


def test_memory_that_runs_out_names_what_to_lower(toy):
    class Greedy(toy.Model):
        def forward(self, views):
            return Step(torch.empty(2**58).sum())

    with pytest.raises(MemoryShortError, match=r"Lower batch_size.*image_size.*backbone"):
        toy.train(Greedy())


def test_an_error_that_is_not_memory_keeps_its_name(toy):
    class Wrong(toy.Model):
        def forward(self, views):
            return Step((views @ views).sum())

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        toy.train(Wrong())


def test_a_reader_that_dies_over_a_file_is_named(toy, tmp_path):
    def dies():
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(WorkerError, match=r"reading the images failed.*Input/output error"):
        toy.train(toy.Model(), tmp_path / "run", batches=at_batch(toy, 6, dies))
    assert_goes_on_as_if_nothing_had_been(toy, tmp_path / "run", tmp_path / "whole")


def test_a_clock_that_goes_backwards_changes_nothing(toy, tmp_path, monkeypatch):
    now = iter(range(10**9, 0, -3600))
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: float(next(now)))
        toy.train(toy.Model(), tmp_path / "run")
    facts = [path.stat().st_size for path in (tmp_path / "run/checkpoints").iterdir()]
    assert len(facts) == 2
    assert_goes_on_as_if_nothing_had_been(toy, tmp_path / "run", tmp_path / "whole")
