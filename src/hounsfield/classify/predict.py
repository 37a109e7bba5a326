"""`predict`: scans in, calibrated probabilities out: slices as they come, patients in the end."""

import csv
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from hounsfield.classify.heatmap import write_heatmaps
from hounsfield.classify.kept import Kept, load
from hounsfield.classify.scans import Scan, scans
from hounsfield.classify.scored import keep_logits
from hounsfield.classify.units import Pool
from hounsfield.data.keys import Keys, default_key_file, load_or_make
from hounsfield.data.refusal import Refusal
from hounsfield.data.refused import names_beside, write_names
from hounsfield.data.resample import Shape
from hounsfield.errors import ReadError
from hounsfield.files import disk_errors, write_text
from hounsfield.judge.view import LEVELS, Level
from hounsfield.lock import new_folder, reserved
from hounsfield.provenance import origin
from hounsfield.train.device import DeviceName
from hounsfield.wording import plural

BATCH = 64  # slices that the network sees at a time
SLACK = 1.25  # factor by which pixels may be finer or coarser than all of the training's
FIRST_COLUMNS = ("level", "patient", "series", "file", "z_mm", "slices")


@dataclass
class Tally:
    """What became of the sources.

    Attributes:
        slices, patients: That were scored.
        refused: Files and series that were not, with the reasons.
        calibrated: The levels whose probabilities are calibrated.
        names: Where the names of the files are told, if the outputs have their keyed hashes.
    """

    slices: int = 0
    patients: int = 0
    refused: list[Refusal] = field(default_factory=list)
    calibrated: tuple[Level, ...] = ()
    names: Path | None = None

    def lines(self, out: Path) -> list[str]:
        """The outcome for a reader, a fact a line."""
        lines = [
            f"Predictions: {out} ({plural(self.slices, 'slice')} of "
            f"{plural(self.patients, 'patient')})"
        ]
        if self.refused:
            lines.append(f"Not scored: {plural(len(self.refused), 'file')}, in {refused_file(out)}")
        if self.names is not None:
            lines.append(f"Names of the files: {self.names}")
        bare = [level for level in LEVELS if level not in self.calibrated]
        if bare:
            lines.append(f"Note: probabilities by {' and by '.join(bare)} are not calibrated.")
        return lines


def predict(
    run: str | Path,
    sources: Sequence[Path],
    out: Path,
    *,
    heatmaps: Path | None = None,
    workers: int = 1,
    key: Path | None = None,
    keep_ids: bool = False,
    patient_pattern: str | None = None,
    device: DeviceName = "auto",
) -> Tally:
    """Score every scan below `sources` and write `out` (CSV); what is not scored goes beside it.

    A row a slice, then a row a patient: probabilities of every class. Beside `out`, a file whose
    name ends in `.refused.csv` lists what could not be read, and the scans that the classifier was
    not made for. Both files appear whole, in the end; until then the scores of whole scans lie in a
    hidden folder beside them, and the same call after an interruption scores only the others. Names
    of files are keyed hashes as well, for they may be names of people; which is which is told
    beside the key.

    Args:
        run: A folder that `finetune` made.
        sources: Folders, files and zip archives.
        out: The CSV file, which must not exist.
        heatmaps: A folder, which must not exist, for a picture of every slice.
        workers: Reading processes.
        key: The file of the key for identities, as of ingest.
        keep_ids: Keep identities as they are.
        patient_pattern: A regular expression that finds the patient in a file's path.
        device: "auto" takes a GPU where there is one.

    Raises:
        OutputError: `out` or `heatmaps` exists.
        WeightsError: `run` holds no classifier.
        ReadError: Not a single slice could be scored.
        InputError: A source does not exist.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    scored = out.with_name(f".{out.name}.scored")
    with ExitStack() as outputs:
        for path in (out, refused_file(out)):
            outputs.enter_context(reserved(path))
        folder = None if heatmaps is None else outputs.enter_context(new_folder(heatmaps))
        kept = load(run, device=device)
        facts = kept.facts
        key = key or default_key_file()
        keys = Keys(None) if keep_ids else load_or_make(key)
        tally = Tally(
            calibrated=tuple(facts.calibration), names=None if keep_ids else names_beside(key, out)
        )
        found = scans(
            sources, Shape(facts.slice_size, facts.grid_mm, facts.crop), keys,
            workers=workers, patient_pattern=patient_pattern,
        )  # fmt: skip
        outputs.enter_context(closing(found))
        write = outputs.enter_context(_table(out, facts.classes))
        scorer = f"{kept.encoder.card.sha256} {device} {origin()}"
        score = keep_logits(scored, partial(_logits, kept), scorer=scorer)
        seen = _score(kept, found, score, tally, keys, write, heatmaps=folder)
        _write_refused(out, tally, keys)
        if tally.names is not None:
            files = list(dict.fromkeys([*seen, *(one.file for one in tally.refused)]))
            hashes = [keys("file", file) for file in files]
            write_names(tally.names, pl.DataFrame({"file": hashes, "name": files}))
        if not tally.slices:
            raise ReadError(
                f"no slice could be scored; refused: {plural(len(tally.refused), 'file')}, the "
                f"first: {tally.refused[0].reason if tally.refused else 'there are no files'}. "
                f"See {refused_file(out)}, and remove it before you run the same command again."
            )
    shutil.rmtree(scored, ignore_errors=True)
    return tally


def _score(
    kept: Kept,
    found: Iterator[Scan | Refusal],
    score: Callable[[Scan], NDArray[np.float64]],
    tally: Tally,
    keys: Keys,
    write: Callable[[list[Any]], object],
    *,
    heatmaps: Path | None,
) -> list[str]:
    """Write the rows of slices and of patients and count in `tally`; the files that were scored."""
    files: list[str] = []
    pools: dict[str, Pool] = {}
    for scan in found:
        if isinstance(scan, Refusal):
            tally.refused.append(scan)
            continue
        reason = why_not(kept, scan)
        if reason:
            tally.refused += [Refusal(file, "refused", reason) for file in scan.files]
            continue
        logits = score(scan)
        files += scan.files
        for row in _slice_rows(scan, kept.probabilities(logits, "slice"), keys):
            write(row)
        pools.setdefault(scan.patient, Pool(kept.facts.pool)).add(logits)
        if heatmaps is not None:
            write_heatmaps(kept, scan, heatmaps)
    for patient, pool in pools.items():
        likely = kept.probabilities(pool.logits()[None], "patient")[0]
        write(["patient", patient, "", "", "", pool.slices, *_rounded(likely)])
    tally.slices, tally.patients = len(files), len(pools)
    return files


def why_not(kept: Kept, scan: Scan) -> str:
    """Why the classifier was not made for a scan; empty where it was."""
    facts = kept.facts
    if scan.units not in facts.units:
        word = {"hu": "HU", "display": "display values (a picture, already windowed)"}
        return (
            f"it holds {word[scan.units]}; this classifier was trained on "
            f"{' and '.join(word[unit] for unit in facts.units)}"
        )
    if scan.spacing_mm is None:
        known = facts.grid_mm is not None or facts.spacing_mm is not None
        return "its pixel spacing is not known; this classifier needs it" if known else ""
    if facts.spacing_mm is None:
        return ""
    low, high = facts.spacing_mm
    finest, coarsest = min(scan.spacing_mm), max(scan.spacing_mm)
    if low / SLACK <= finest and coarsest <= high * SLACK:
        return ""
    return (
        f"its stored pixels are {finest:.3g} to {coarsest:.3g} mm; this classifier was trained on "
        f"{low:.3g} to {high:.3g} mm"
    )


def _logits(kept: Kept, scan: Scan) -> NDArray[np.float64]:
    is_hu = np.full(len(scan.images), scan.units == "hu")
    parts = [
        kept.logits(scan.images[first : first + BATCH], is_hu[first : first + BATCH])
        for first in range(0, len(scan.images), BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)


def _slice_rows(scan: Scan, probabilities: NDArray[np.float64], keys: Keys) -> Iterator[list[Any]]:
    for file, z_mm, row in zip(scan.files, scan.z_mm, probabilities, strict=True):
        yield [
            "slice", scan.patient, scan.series, keys("file", file), z_mm, 1, *_rounded(row)
        ]  # fmt: skip


def _rounded(probabilities: NDArray[np.float64]) -> list[str]:
    return [f"{value:.6f}" for value in probabilities]


@contextmanager
def _table(out: Path, classes: Sequence[str]) -> Iterator[Callable[[list[Any]], object]]:
    """A writer of rows; the file bears its name only when the block ends without an error."""
    temporary = out.with_name(f".{out.name}.part")
    with disk_errors(out):
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow([*FIRST_COLUMNS, *(f"probability_{name}" for name in classes)])
                yield writer.writerow
            temporary.replace(out)
        finally:
            temporary.unlink(missing_ok=True)


def refused_file(out: Path) -> Path:
    """Where the files are listed that were not scored."""
    return out.with_name(f"{out.stem}.refused.csv")


def _write_refused(out: Path, tally: Tally, keys: Keys) -> None:
    rows = [(keys("file", one.file), one.status, one.reason) for one in tally.refused]
    write_text(refused_file(out), _csv([("file", "status", "reason"), *rows]))


def _csv(rows: Sequence[tuple[str, ...]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()
