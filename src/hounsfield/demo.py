"""The whole way on a phantom archive: DICOM, store, pre-trainings, study, report."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from hounsfield.data.ingest import ingest
from hounsfield.data.phantom import phantom
from hounsfield.errors import OutputError
from hounsfield.files import write_text
from hounsfield.progress import bar
from hounsfield.report.make import report
from hounsfield.study.config import load_study
from hounsfield.study.plan import plan
from hounsfield.study.run import Outcome, run

PATIENTS = 48
SEED = 0
SIZE_PX = 64
PARTS = ("archive", "store", "study.toml", "study")


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
        HounsfieldError: As the stages do.
    """
    archive, store, study_file = out / "archive", out / "store", out / "study.toml"
    study = resources.files("hounsfield").joinpath("demo.toml").read_text()
    _check_ours(out, study_file, study)
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
    return Demo(outcome, report(outcome.folder))


def _check_ours(out: Path, study_file: Path, study: str) -> None:
    present = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    foreign = sorted(name for name in present if name not in PARTS and not name.startswith("."))
    if foreign or (study_file.exists() and study_file.read_text() != study):
        what = f"holds {foreign[0]}" if foreign else f"has another {study_file.name}"
        raise OutputError(f"{out} {what}, which is not this demo's. Choose a new folder.")
