"""Kill it anywhere: SIGKILL from outside, the same command again, the same bytes in the end.

`KILLS=1` (the default) kills each kind of work once, where it hurts. More kills (`make soak`) take
every method, strike at random moments and at every phase in turn, and print what each has hit.
"""

import multiprocessing
import os
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

import hounsfield
from hounsfield.cli import main
from hounsfield.data.phantom import phantom
from hounsfield.seeding import stream
from long_work import ingest_command, work

KILLS = int(os.environ.get("KILLS", "1"))
METHODS = ["spark", "moco_v2", "byol", "swav"]
PRELOADED = [
    "hounsfield.study.run",
    "hounsfield.classify.finetune",
    "hounsfield.data.ingest",
    "hounsfield.report.table",
    "lightning_fabric",
]


@pytest.fixture(scope="session", autouse=True)
def environment():
    """Children find the package that is tested, and share the cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(hounsfield.__file__).parents[1]))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    place = tmp_path_factory.mktemp("scans")
    phantom(place / "dicom", patients=6, seed=0, matrix=64)
    run(ingest_command(place)(place / "store"))
    return place


def start(arguments):
    """`hounsfield` with these arguments, in a fresh process that has its imports behind it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    before = sys.argv
    sys.argv = ["hounsfield", *arguments]
    try:
        process = context.Process(target=main)
        process.start()
    finally:
        sys.argv = before
    return process


def run(arguments):
    process = start(arguments)
    process.join()
    assert process.exitcode == 0


def kill(process, out, work, *, after_s=0.0, phase=None):
    """Stop the process, see what it was at, kill it; None if it had ended before."""
    began = time.monotonic()
    while process.is_alive():
        waited = time.monotonic() - began >= after_s
        if waited and (phase is None or work.phase(out) == phase):
            os.kill(process.pid, signal.SIGSTOP)
            hit = work.phase(out)
            if phase is None or hit == phase:
                process.kill()
                process.join()
                return hit if process.exitcode == -signal.SIGKILL else None
            os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.0005)
    process.join()
    assert process.exitcode == 0
    return None


def content(out, work):
    """The results, file by file."""
    files = sorted(path for pattern in work.result for path in out.glob(pattern))
    return {re.sub(r"[.][0-9a-f]{64}", "", str(p.relative_to(out))): bytes_of(p) for p in files}


def bytes_of(path):
    """What a file holds; of a checkpoint all but how long the training took."""
    if path.suffix != ".pt":
        return path.read_bytes()
    state = torch.load(path, weights_only=True)
    del state["seconds"]
    return b"".join(plain(state))


def plain(value):
    """The values of nested dicts and lists in their order, tensors bit by bit."""
    if isinstance(value, torch.Tensor):
        yield f"{tuple(value.shape)} {value.dtype}".encode() + value.numpy().tobytes()
    elif isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            yield repr(name).encode()
            yield from plain(inner)
    else:
        yield repr(value).encode()


def aim(kind, job, hits, lasts_s, runs):
    """Where the next kill strikes: the sore phase, or by turns a random moment and a new phase."""
    tried = sum(hits.values())
    missing = [phase for phase in job.phases if not hits[phase]]
    if KILLS == 1:
        return {"phase": job.sore}
    if tried % 2 and missing:
        return {"phase": missing[0]}
    return {"after_s": stream(0, kind, tried, runs).uniform(0, lasts_s)}


@pytest.fixture
def log(capsys):
    """A line to the terminal, in a soak."""

    def tell(line):
        if KILLS > 1:
            with capsys.disabled():
                print(line, flush=True)  # noqa: T201

    return tell


@pytest.mark.timeout(3600 if KILLS > 1 else 300)
@pytest.mark.parametrize(
    "kind", ["ingest", "study", "finetune", *(METHODS if KILLS > 1 else METHODS[:1])]
)
def test_a_killed_run_that_is_started_again_ends_with_the_same_bytes(kind, scans, tmp_path, log):
    job = work(kind, scans, tmp_path)
    began = time.monotonic()
    run(job.command(tmp_path / "whole"))
    lasts_s = time.monotonic() - began
    whole = content(tmp_path / "whole", job)
    assert len(whole) >= len(job.result)
    hits, runs, out = Counter(), 0, tmp_path / "killed0"
    while sum(hits.values()) < KILLS or (KILLS > 1 and set(job.phases) - set(hits)):
        fresh, began = not out.exists(), time.monotonic()
        hit = kill(start(job.command(out)), out, job, **aim(kind, job, hits, lasts_s, runs))
        if hit is None and fresh:  # the machine may have become faster
            lasts_s = min(lasts_s, time.monotonic() - began)
        if hit is not None:
            hits[hit] += 1
            log(f"{kind}, run {runs + 1}, kill {sum(hits.values())}: {hit}")
            continue
        assert content(out, job) == whole
        log(f"{kind}, run {runs + 1}: ended with the same {len(whole)} files")
        runs, out = runs + 1, tmp_path / f"killed{runs + 1}"
        assert runs < 10 * KILLS, f"{set(job.phases) - set(hits)} are never hit"
    if out.exists() or any(tmp_path.glob(f".{out.name}.*")):
        run(job.command(out))
        assert content(out, job) == whole
        log(f"{kind}, run {runs + 1}: ended with the same {len(whole)} files")
    assert not list(tmp_path.rglob(".*.part"))
    log(f"{kind}: {sum(hits.values())} kills: {dict(sorted(hits.items()))}")
