"""From sources to a store: look, read headers, form volumes, convert in parallel, join, write.

The way of a file: `archive.walk` finds it, its reader turns it (with its series) into a volume,
`resample.to_shape` gives the stored slices, and a part lands in a staging folder beside the store.
An interrupted ingest finds its parts again. `assemble` makes the store from all parts at the end.
"""

import re
import shutil
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hounsfield.data.archive import STAGING, Entry, files_below, look_at, natural
from hounsfield.data.assemble import Flow, assemble, old_store
from hounsfield.data.convert import Job, Unit, convert, is_whole, read_headers
from hounsfield.data.identify import check_labels
from hounsfield.data.keys import Keys, default_key_file, load_or_make
from hounsfield.data.labels import Labels, match_files, read_labels
from hounsfield.data.refusal import Refusal
from hounsfield.data.refused import names_beside
from hounsfield.data.resample import Crop, Shape
from hounsfield.data.series import Header, group
from hounsfield.data.store import COLUMNS, Store
from hounsfield.data.workers import Death, Staff
from hounsfield.errors import ConfigError, InputError, OutputError
from hounsfield.files import check_space, sweep
from hounsfield.lock import held
from hounsfield.progress import bar

HEADERS_A_TASK = 64
IMAGES_A_TASK = 64
BYTES_A_SLICE = {"nifti": 2 * 512**2, "itk": 2 * 512**2, "medmnist": 224**2}  # the usual largest
MARK = "new"  # lies beside the parts from when they begin to become a store that was not there


def ingest(
    sources: Sequence[Path],
    out: Path,
    *,
    labels: Path | None = None,
    size: int = 128,
    workers: int = 1,
    spacing_mm: float | None = None,
    crop: Crop | None = None,
    append: bool = False,
    key: Path | None = None,
    keep_ids: bool = False,
    patient_pattern: str | None = None,
    class_folders: str | None = None,
) -> Flow:
    """Read everything below `sources` into the store `out`; returns what became of it.

    Args:
        sources: Folders, files and zip archives.
        out: The store, which must not exist unless `append`.
        labels: A CSV or Parquet table; `labels.FORMS` says how it may name slices.
        size: Height and width of the stored slices in pixels.
        workers: Reading processes.
        spacing_mm: A fixed pixel size; None scales every slice as a whole to `size`.
        crop: `"body"` cuts every volume to its body first.
        append: Add to the store `out` what is not in it yet.
        key: The file of the key for identities; by default one a user, made at its first use.
        keep_ids: Keep identities as they are.
        patient_pattern: A regular expression on a file's path; its group `patient`, or its first
            group, is the patient.
        class_folders: A label column that takes the name of the first folder of every path.

    Raises:
        InputError: What was given is not right; `out` is as it was.
        MachineError: The disk or the workers failed; the same command goes on.
    """
    shape = Shape(size, spacing_mm, crop)
    _check_pattern(patient_pattern)
    if workers < 1:
        raise ConfigError(f"{workers} workers cannot work; give at least 1.")
    table = read_labels(labels) if labels is not None else None
    _check_class_folders(class_folders, table)
    key = key or default_key_file()
    staging = out.parent / f".{out.name}{STAGING}"
    with _staged(staging), Staff(workers) as staff:
        ending = out.exists() and (staging / MARK).exists()  # killed once the store was there
        before = _before(out, shape, append=append or ending, keep_ids=keep_ids)
        keys = Keys(None) if keep_ids else load_or_make(_outside(key, out))
        job = Job(shape, keys, staging, patient_pattern, class_folders is not None)
        units, rows, refusals = _find(sources, table, job, staff, before=before)
        there, tasks = _parts_there(units, job)
        slices = slices_of(units) + slices_of(tasks)  # of the store, and of the parts it lacks
        check_space(out, slices * 2 * shape.size**2)
        parts, died = _convert(there, tasks, job, staff)
        if before is None:
            (staging / MARK).touch()
        return assemble(
            out,
            parts,
            [*refusals, *died],
            before=before,
            shape=shape,
            keys=keys,
            labels=table,
            rows_by_file=rows,
            class_folders=class_folders,
            listing=out / "refused.csv" if keep_ids else names_beside(key, out),
        )


@contextmanager
def _staged(staging: Path) -> Iterator[None]:
    """Hold the folder of the parts; it stays only where it holds work to go on from."""
    with held(staging):
        try:
            yield
        except InputError:
            if not any(staging.glob("*.i16")):
                for part in (*staging.glob("*.json"), staging / MARK):
                    part.unlink(missing_ok=True)
            raise
        for part in (*staging.glob("*.i16"), *staging.glob("*.json")):  # all but the mark first
            part.unlink(missing_ok=True)
        shutil.rmtree(staging, ignore_errors=True)


def _check_pattern(pattern: str | None) -> None:
    if pattern is None:
        return
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ConfigError(f"{pattern!r} is no regular expression: {error}.") from None
    if not groups:
        raise ConfigError(f"{pattern!r} has no group; put the patient's part in parentheses.")


def _check_class_folders(name: str | None, table: Labels | None) -> None:
    if name in COLUMNS:
        raise ConfigError(
            f"{name!r} is a column of every store. Give --class-folders another name."
        )
    if table is not None and name in table.names:
        raise ConfigError(f"{table.path} has a column {name!r} too. Give --class-folders another.")


def _before(out: Path, shape: Shape, *, append: bool, keep_ids: bool) -> Store | None:
    """The store that is added to; the caller holds the staging folder, so that it stays that."""
    sweep(out.parent, out.name)
    if not out.exists() and old_store(out).exists():  # an addition was killed as it took over
        old_store(out).rename(out)
    if not append:
        if out.exists():
            raise OutputError(
                f"{out} exists. Give --append to add what it lacks, or choose another folder."
            )
        return None
    store = Store.open(out)
    facts = store.facts
    if Shape(facts.size, facts.spacing_mm, facts.crop) != shape:
        raise OutputError(
            f"{out} has slices of {facts.size} px, spacing {facts.spacing_mm}, crop {facts.crop}; "
            "an addition must have the same. Give the same --size, --spacing-mm and --crop."
        )
    if facts.keyed is keep_ids:
        word = "keyed hashes" if facts.keyed else "identities as they are"
        raise OutputError(f"{out} has {word}; an addition must have the same (see --keep-ids).")
    return store


def _outside(key: Path, out: Path) -> Path:
    if key.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"the key {key} would lie in the store {out}. Keep it outside.")
    return key


def _find(
    sources: Sequence[Path], table: Labels | None, job: Job, staff: Staff, *, before: Store | None
) -> tuple[list[Unit], dict[str, int], list[Refusal]]:
    """What is converted together, the table's rows of files, and what stays out already."""
    entries, refusals = look(sources)
    paths = {one.name: one.path / (one.member or "") for one in entries}
    rows = match_files(table, paths) if table is not None and table.form == ("file",) else {}
    units, not_read = units_of(entries, staff)
    if table is not None:
        check_labels(units, job, table, rows, before=before)
    return units, rows, [*refusals, *not_read]


def look(sources: Sequence[Path]) -> tuple[list[Entry], list[Refusal]]:
    """Every file below `sources` that may be read, and those that are not for us."""
    entries: list[Entry] = []
    refusals: list[Refusal] = []
    files = files_below(sources)
    with bar("files", total=len(files)) as progress:
        for path, name in files:
            for found in look_at(path, name):
                if isinstance(found, Entry):
                    entries.append(found)
                else:
                    refusals.append(found)
            progress.advance()
    return entries, refusals


def units_of(entries: Sequence[Entry], staff: Staff) -> tuple[list[Unit], list[Refusal]]:
    """What is converted together, in the order of the files, and what stays out already."""
    files = [one for one in entries if one.kind == "dicom"]
    headers, refusals = _read_headers(files, staff)
    units = [Unit("dicom", slices) for slices in group(headers)]
    folders: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.kind == "image":
            folders[entry.name.rpartition("/")[0]].append(entry)
        elif entry.kind != "dicom":
            units.append(Unit(entry.kind, (entry,)))
    for pictures in folders.values():
        units += [
            Unit("image", tuple(pictures[start : start + IMAGES_A_TASK]))
            for start in range(0, len(pictures), IMAGES_A_TASK)
        ]
    return sorted(units, key=_place), refusals


def _read_headers(files: Sequence[Entry], staff: Staff) -> tuple[list[Header], list[Refusal]]:
    headers: list[Header] = []
    refusals: list[Refusal] = []
    tasks = deque(
        tuple(files[start : start + HEADERS_A_TASK])
        for start in range(0, len(files), HEADERS_A_TASK)
    )
    with bar("headers", total=len(files)) as progress:
        for task, outcome in staff.each(read_headers, tasks):
            if isinstance(outcome, Death):
                refusals += blame(outcome)
                tasks.append(tuple(one for one in task if one.name != outcome.file))
                continue
            headers += outcome[0]
            refusals += outcome[1]
            progress.advance(len(task))
    return sorted(headers, key=lambda one: (natural(one.entry.name), one.frame)), refusals


def _parts_there(units: Sequence[Unit], job: Job) -> tuple[list[tuple[Unit, Path]], deque[Unit]]:
    """The units with a part that an earlier run has made, and those that are left to do."""
    there: list[tuple[Unit, Path]] = []
    tasks: deque[Unit] = deque()
    for unit in units:
        part = job.part_of(unit)
        if is_whole(part):
            there.append((unit, part))
        else:
            tasks.append(unit)
    return there, tasks


def slices_of(units: Iterable[Unit]) -> int:
    """About how many slices units give: rather too few, so that no disk with room is refused."""
    return sum(
        max(unit.entries[0].n_bytes // BYTES_A_SLICE[unit.kind], 1)
        if unit.kind in BYTES_A_SLICE
        else len(unit.items)
        for unit in units
    )


def _convert(
    there: Sequence[tuple[Unit, Path]], tasks: deque[Unit], job: Job, staff: Staff
) -> tuple[list[Path], list[Refusal]]:
    """The parts of all units, in their order, and the files that killed their readers."""
    parts = list(there)
    refusals: list[Refusal] = []
    with bar("series", total=len(there) + len(tasks), done=len(there)) as progress:
        for unit, outcome in staff.each(partial(convert, job), tasks):
            if not isinstance(outcome, Death):
                parts.append((unit, outcome))
                progress.advance()
                continue
            refusals += blame(outcome)
            rest = unit.without(outcome.file)
            if rest.items:
                tasks.append(rest)
    return [part for _, part in sorted(parts, key=lambda one: _place(one[0]))], refusals


def _place(unit: Unit) -> tuple[object, ...]:
    first = unit.items[0]
    return natural(unit.entries[0].name), first.frame if isinstance(first, Header) else 0


def blame(death: Death) -> list[Refusal]:
    """The refusal of the file that killed its reader, if it had announced one."""
    return [Refusal(death.file, "refused", death.reason)] if death.file else []
