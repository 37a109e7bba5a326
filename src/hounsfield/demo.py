"""The whole way on a phantom archive: DICOM, store, pre-trainings, study, report."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from hounsfield import __version__
from hounsfield.data.ingest import ingest
from hounsfield.data.phantom import phantom
from hounsfield.errors import OutputError
from hounsfield.files import write_json, write_text
from hounsfield.lock import held
from hounsfield.progress import bar
from hounsfield.report.make import report
from hounsfield.study.config import load_study
from hounsfield.study.plan import plan
from hounsfield.study.run import Outcome, run

PATIENTS = 48
SEED = 0
SIZE_PX = 64
MADE_WITH = {"version": __version__, "patients": PATIENTS, "seed": SEED, "size_px": SIZE_PX}
PARTS = ("demo.json", "archive", "store", "study.toml", "study")


@dataclass(frozen=True)
class Demo:
    """What a demo leaves: what its study came to, and the page."""

    outcome: Outcome
    page: Path


def demo(out: Path, *, jobs: int, say: Callable[[str], None]) -> Demo:
    """Make a phantom archive in `out` and run a study on it; what is finished is not redone.

    Args:
        out: A new folder, or one that an earlier call began.
        jobs: Cells side by side.
        say: Called with one line before every stage.

    Raises:
        OutputError: `out` holds something that is no demo, or another version's.
        BusyError: Another process is at work in `out`.
        HounsfieldError: As the stages do.
    """
    study = resources.files("hounsfield").joinpath("demo.toml").read_text()
    _check_ours(out, study)
    with held(out):
        write_json(out / "demo.json", MADE_WITH)
        return _demo(out, study, jobs=jobs, say=say)


def _demo(out: Path, study: str, *, jobs: int, say: Callable[[str], None]) -> Demo:
    archive, store, study_file = out / "archive", out / "store", out / "study.toml"
    if not archive.exists():
        say(f"1/4  phantom: {PATIENTS} patients as DICOM in {archive}")
        with bar("patients", total=PATIENTS) as progress:
            phantom(archive, patients=PATIENTS, seed=SEED, advance=progress.advance)
    if not store.exists():
        say(f"2/4  ingest: {archive} into {store}")
        ingest(
            [archive],
            store,
            labels=archive / "labels.csv",
            size=SIZE_PX,
            workers=jobs,
            keep_ids=True,
        )
    say(f"3/4  study: {study_file}")
    write_text(study_file, study)
    outcome = run(plan(load_study(study_file)), out / "study", jobs=jobs)
    say("4/4  report")
    return Demo(outcome, report(outcome.folder).page)


def _check_ours(out: Path, study: str) -> None:
    """Refuse what is no demo, and a demo that would be finished otherwise than it was begun."""
    study_file, made_with = out / "study.toml", out / "demo.json"
    present = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    foreign = sorted(name for name in present if name not in PARTS and not name.startswith("."))
    if foreign or (study_file.exists() and study_file.read_text() != study):
        what = f"holds {foreign[0]}" if foreign else f"has another {study_file.name}"
        raise OutputError(f"{out} {what}, which is not this demo's. Choose a new folder.")
    before = json.loads(made_with.read_bytes()) if made_with.exists() else {}
    if present.intersection(PARTS) and before != MADE_WITH:
        theirs = ", ".join(f"{name} {value}" for name, value in before.items()) or "no demo.json"
        ours = ", ".join(f"{name} {value}" for name, value in MADE_WITH.items())
        raise OutputError(f"{out} has {theirs}; this demo has {ours}. Choose a new folder.")
