"""Ctrl-C and SIGTERM in the long verbs: one line says how to go on, and nothing is half-written."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import hounsfield
from hounsfield import cli
from hounsfield.classify.kept import Facts, Kept, save
from hounsfield.data.ingest import ingest
from hounsfield.data.phantom import phantom
from hounsfield.encoder import load_encoder
from hounsfield.models.backbone import create
from long_work import work

TRIES = 5  # a command may end before it is seen to be where it shall be stopped


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    place = tmp_path_factory.mktemp("scans")
    labels = phantom(place / "dicom", patients=6, seed=0, matrix=64)
    ingest([place / "dicom"], place / "store", labels=labels, size=64, key=place / "key")
    return place


def stopped(command, out, phase, at, sign):
    """Start a command, send SIG`sign` to all of its processes once it is at `at`: code, words."""
    environment = {**os.environ, "PYTHONPATH": str(Path(hounsfield.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "hounsfield", *command],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and phase(out) != at:
        time.sleep(0.001)
    if process.poll() is None:
        os.killpg(process.pid, signal.Signals[f"SIG{sign}"])
    words = process.communicate()[1]
    return process.returncode, words


@pytest.mark.parametrize(
    ("kind", "more", "at", "sign", "says"),
    [
        (
            "ingest",
            [],
            "converting",
            "INT",
            "interrupted. Nothing is half-written: run the same command again.",
        ),
        ("spark", [], "in a step", "TERM", r"stopped after step \d+ of 24; the state is saved in"),
        ("finetune", [], "at the last rate", "INT", r"stopped after step \d+ of 24; the state is"),
        ("study", ["--jobs", "2"], "pre-training", "INT", r"stopped.* Run the same command again"),
        ("study", ["--jobs", "2"], "in the first cell", "TERM", r"stopped; kept in .*: \d of 2"),
    ],
)
def test_all_processes_of_a_verb_answer_with_one_line(scans, tmp_path, kind, more, at, says, sign):
    job = work(kind, scans, tmp_path)
    for number in range(TRIES):
        out = tmp_path / f"out{number}"
        code, words = stopped([*job.command(out), *more], out, job.phase, at, sign)
        if code:
            break
    assert code == 130, words
    assert "Traceback" not in words
    assert re.match(says, words.splitlines()[-1]), words
    assert not list(tmp_path.rglob(".*.part"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A run's encoder, and a classifier, that nobody has trained."""
    place, backbone = tmp_path_factory.mktemp("weights"), create("resnet10_tiny")
    header = {"backbone": backbone.name, "channels": "1", "image_size": "32"}
    save_file(backbone.net.state_dict(), place / "encoder.safetensors", metadata=header)
    facts = Facts(task="bleed", classes=("0", "1"), slice_size=64, units=("hu",))
    encoder = load_encoder(place / "encoder.safetensors")
    save(Kept(encoder, torch.nn.Linear(backbone.embed_dim, 2), facts), place)
    return place


@pytest.mark.parametrize(
    ("verb", "within", "left"),
    [
        ("phantom", "hounsfield.data.phantom.write_patient", ()),
        ("thin", "hounsfield.data.thin.difference_hashes", ()),
        ("leaks", "hounsfield.data.leaks.difference_hashes", ()),
        ("contract", "hounsfield.methods.contract.create", ()),
        ("reconstruct", "hounsfield.train.reconstruct.drawings", ()),
        ("report", "hounsfield.report.make.read", ()),
        ("power", "hounsfield.judge.planning.read_facts", ()),
        ("demo", "hounsfield.data.phantom.write_patient", ("out", "out/demo.json")),
        ("weights", "hounsfield.models.recognise.create", ()),
        ("export", "hounsfield.export.make.model_card", ()),  # all but this is written
        ("finetune", "hounsfield.classify.finetune.fair", ("out", "out/config.json")),
        ("predict", "hounsfield.classify.predict.why_not", ()),  # the first series is read
    ],
)
def test_an_output_that_comes_whole_does_not_come_at_all_and_no_process_stays(
    scans, weights, tmp_path, monkeypatch, capsys, verb, within, left
):
    def stop(*_, **__):
        signal.raise_signal(signal.SIGTERM)

    store, to = str(scans / "store"), ("--out", str(tmp_path / "out"))
    arguments = {
        "phantom": to[1:],
        "thin": (store, *to),
        "leaks": (store,),
        "contract": ("byol",),
        "reconstruct": (str(tmp_path), store, *to),
        "report": (str(tmp_path), *to),
        "power": (str(tmp_path),),
        "demo": to,
        "weights": (str(weights / "encoder.safetensors"),),
        "export": (str(weights), *to),
        "finetune": (
            "--weights=scratch", "--store", store, "--task=region",
            "--set=backbone=resnet10_tiny", *to,
        ),
        "predict": (str(weights), str(scans / "dicom"), "--key", str(scans / "key"), *to),
    }  # fmt: skip
    monkeypatch.setattr(within, stop)
    monkeypatch.setattr("sys.argv", ["hounsfield", verb, *arguments[verb]])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert end.value.code == 130
    assert capsys.readouterr().err.endswith(
        "interrupted. Nothing is half-written: run the same command again.\n"
    )
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == set(left)
    assert multiprocessing.active_children() == []
