"""The verbs as a user types them, from a phantom archive to a page; and what goes wrong on the way.

The study is a tenth of the demo's size, so nothing here says how well anything learns.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from hounsfield import cli
from hounsfield.report.words import NARROW

STUDY = """
seed = 0
backbone = "resnet10_tiny"
image_size = 32
arms = ["scratch", "spark", "moco_v2"]
fractions = [1.0, 0.5]
repeats = 2
device = "cpu"

[stores]
phantom = "store"

[tasks.bleed]
store = "phantom"
label = "bleed"
window = "brain"

[tasks.region]
store = "phantom"
label = "region"

[pretrain.spark]
budget = { steps = 3 }
batch_size = 8
spark = { decoder_width = 32, mask_ratio = 0.5 }
image_size = 64

[pretrain.moco_v2]
budget = { steps = 3 }
batch_size = 8

[budget]
steps = 4
batch = 10
lr = 1e-3
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run a verb as the command line does."""

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr("sys.argv", ["hounsfield", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        text = capsys.readouterr()
        return Ended(int(end.value.code or 0), text.out, text.err)

    return call


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive and a store of 24 phantom patients, and a study file."""
    from hounsfield.data.ingest import ingest
    from hounsfield.data.phantom import phantom

    home = tmp_path_factory.mktemp("home")
    labels = phantom(home / "archive", patients=24, seed=0, matrix=48)
    ingest([home / "archive"], home / "store", labels=labels, size=64, key=home / "key")
    (home / "study.toml").write_text(STUDY)
    return home


def test_from_an_archive_to_a_page(run, home: Path, tmp_path: Path) -> None:
    archive, store, study = tmp_path / "archive", tmp_path / "store", tmp_path / "results"
    assert run("phantom", archive, "--patients", 2, "--seed", 1).code == 0
    labels = archive / "labels.csv"
    key = tmp_path / "key"
    ended = run("ingest", archive, "--out", store, "--labels", labels, "--size", 32, "--key", key)
    assert ended.code == 0, ended.err
    assert json.loads(run("info", store, "--json").out)["flow"]["patients"] == 2

    ended = run("study", home / "study.toml", "--out", study)
    assert ended.code == 0, ended.err
    assert "bleed: AUC by slice" in ended.out
    ended = run("report", study)
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"With 50{NARROW}% of the labels")
    assert "bleed: AUC by slice" not in ended.out  # the study has printed its tables
    page = (study / "report" / "report.html").read_text()
    assert "bleed" in page
    assert "region" in page

    results = pl.read_parquet(study / "results.parquet")
    levels = results.filter(kind="level", metric="auc", level="slice")
    assert levels.select("task", "arm", "fraction").unique().height == 2 * 3 * 2
    assert levels["estimate"].is_between(0, 1).all()
    assert (levels["repeats"] == 2).all()

    again = run("study", home / "study.toml", "--out", study)
    assert again.code == 0
    assert pl.read_parquet(study / "results.parquet").equals(results)


def test_pretrain_takes_overrides(run, home: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(f'stores = ["{home / "store"}"]\nbackbone = "resnet10_tiny"\n')
    ended = run(
        "pretrain", config, "--out", tmp_path / "run", "--set", "method=byol",
        "--set", "budget.steps=2", "--set", "batch_size=4", "--set", "image_size=32",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["method"] == "byol"


def test_a_dry_run_writes_nothing(run, home: Path, tmp_path: Path) -> None:
    ended = run("study", home / "study.toml", "--out", tmp_path / "results", "--dry-run")
    assert ended.code == 0, ended.err
    assert "cells: 24, of which 24 are left" in ended.out
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("repeats = 2", "repeat = 2", "unknown key 'repeat'. Did you mean 'repeats'?"),
        (
            '"resnet10_tiny"',
            '"resnet10_tin"',
            "unknown backbone 'resnet10_tin'. Did you mean 'resnet10_tiny'",
        ),
        (
            "[pretrain.moco_v2]",
            '[pretrain.moco_v2]\nmethod = "moco_v3"',
            "unknown method 'moco_v3'. Did you mean 'moco_v2'?",
        ),
        (
            "image_size = 32",
            "image_size = 40",
            "image_size 40 is not a multiple of 32, the stride of resnet10_tiny. Use 32 or 64.",
        ),
        ("0.5]", "0.0001]", "fraction 0.0001 is "),
        ('label = "bleed"', 'label = "bleeds"', "unknown label 'bleeds'. Did you mean 'bleed'?"),
    ],
)
def test_a_study_that_cannot_run_is_one_line_and_nothing_written(
    run, home: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert STUDY.count(old) >= 1
    (home / "wrong.toml").write_text(STUDY.replace(old, new, 1))
    ended = run("study", home / "wrong.toml", "--out", tmp_path / "results")
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert message in ended.err
    assert not (tmp_path / "results").exists()


def test_labels_that_match_no_slice_are_refused(run, home: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("file,bleed\nnowhere/1.dcm,1\n")
    store = tmp_path / "store"
    ended = run("ingest", home / "archive", "--out", store, "--labels", labels)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.csv"]


def test_a_store_is_not_written_over_something_else(run, home: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    ended = run("ingest", home / "archive", "--out", tmp_path)
    assert ended.code == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]
