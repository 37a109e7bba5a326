"""A disk that is full or not writable: a line says so, nothing is half-written, and on it goes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from full_disk import files_of_at_most
from hounsfield.cli import app
from hounsfield.errors import DiskError
from long_work import small_home


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = small_home(tmp_path_factory.mktemp("home"))
    assert run("study", home / "study.toml", "--out", home / "study").exit_code == 0
    return home


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def command(verb, home, out):
    return {
        "phantom": ("phantom", out, "--patients=1"),
        "ingest": ("ingest", home / "archive", "--out", out, "--size=1024", "--key", home / "key"),
        "thin": ("thin", home / "store", "--out", out),
        "pretrain": ("pretrain", home / "pretrain.toml", "--out", out),
        "study": ("study", home / "study.toml", "--out", out),
        "report": ("report", home / "study", "--out", out),
    }[verb]


@pytest.mark.parametrize(
    ("verb", "n_bytes"),
    [
        ("phantom", 4000),  # less than a slice
        ("ingest", 5 * 2**20),  # less than a series
        ("thin", 1000),  # less than any of its files
        ("thin", 9000),  # less than its slices
        ("pretrain", 50_000),  # less than a checkpoint
        ("study", 4000),  # less than what is said of the study
        ("study", 6000),  # less than the scores of a cell
        ("report", 20_000),  # less than a figure
    ],
)
def test_a_full_disk_is_told_and_the_same_command_goes_on_when_there_is_room(
    home, tmp_path, verb, n_bytes
):
    with files_of_at_most(n_bytes):
        told = run(*command(verb, home, tmp_path / "out"))
    assert isinstance(told.exception, DiskError), (told.output, told.exception)
    assert "File too large. Free space there or choose another folder" in str(told.exception)
    assert not list(tmp_path.rglob(".*.part"))
    again = run(*command(verb, home, tmp_path / "out"))
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize("verb", ["phantom", "ingest", "thin", "pretrain", "study", "report"])
def test_a_place_that_cannot_be_written_is_named(home, verb):
    told = run(*command(verb, home, Path("/sys/hounsfield/out")))  # not writable even for root
    assert isinstance(told.exception, DiskError), (told.output, told.exception)
    assert "/sys/hounsfield" in str(told.exception)
    assert told.exception.exit_code == 4
