"""Where the numbers come from: versions, hashes, seeds, machine, hours, configuration."""

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from hounsfield.report import words
from hounsfield.report.html import Section, render
from hounsfield.report.study_folder import Study, mapping
from hounsfield.report.style import Style

CPU, UNTOLD = "cpu", "device that was not stored"


def section(study: Study, style: Style) -> Section:
    """Facts as a list, then every configuration as it was resolved."""
    del style  # no figure
    configs = [("study.json", study.facts.get("config") or study.facts)]
    configs += [
        (f"{words.arm_name(run.name)}, run {run.folder.name[:8]}", run.config) for run in study.runs
    ]
    shown = [(name, json.dumps(_bare(values), indent=2, default=str)) for name, values in configs]
    body = render("provenance", facts=[*facts(study)], configs=shown)
    return Section("provenance", "Provenance", body)


def facts(study: Study) -> Iterator[tuple[str, str]]:
    """Name and value of all that says how the numbers came about."""
    told = study.facts
    for name, key in (
        ("Study", "name"),
        ("Plan, hash", "plan_hash"),
        ("Ladders, hash", "ladder_hash"),
        ("Planned", "date"),
    ):
        if told.get(key):
            yield name, str(told[key])
    versions = _values(study, "version")
    yield "hounsfield", words.listed(versions) or words.DASH
    yield "Commit", words.listed(_values(study, "commit")) or "not stored"
    seed = mapping(told.get("config")).get("seed", told.get("seed"))
    yield "Seed", words.DASH if seed is None else str(seed)
    stores = mapping(told.get("stores"))
    for name, store in stores.items():
        content = mapping(store).get("hash")
        if content:
            yield f"Store {name}, hash", str(content)
    if told.get("machine"):
        yield "Machine", _machine(told)
    yield from _runs(study)
    taken = [run.taken_from for run in study.runs if run.taken_from]
    if taken:
        trained = f"{len(taken):,} of {words.plural(len(study.runs), 'pre-training')}"
        yield "Taken over", f"{trained}, trained in the study {words.listed(sorted(set(taken)))}"
    yield "Cells", f"{len(study.cells):,} of {study.planned_cells:,} planned"
    yield from _times(study)


def _runs(study: Study) -> Iterator[tuple[str, str]]:
    """The runs of each arm on one machine together."""
    together: dict[tuple[str, str], list[str]] = {}
    for run in study.runs:
        together.setdefault((run.name, _machine(run.config)), []).append(run.folder.name)
    for (name, where), runs in together.items():
        told = f"{words.listed(runs)}{f' ({where})' if where else ''}"
        yield f"Pre-training {words.arm_name(name)}", told


def _times(study: Study) -> Iterator[tuple[str, str]]:
    """Wall time by device, and the hours of GPUs: all starts of all runs and cells together."""
    spent: dict[str, dict[str, float]] = {}
    gpu_hours = 0.0
    runs = [("pre-training", run.summary) for run in study.runs]
    for work, entry in [*runs, *(("fine-tuning", cell.facts) for cell in study.cells)]:
        if entry.get("wall_s") == 0:
            continue  # it was given up before it ran on anything
        device = str(entry.get("device") or UNTOLD)
        works = spent.setdefault(device, {})
        works[work] = works.get(work, 0.0) + seconds(entry)
        if device not in (CPU, UNTOLD):
            gpu_hours += seconds(entry) * int(entry.get("processes") or 1) / 3600
    for device, works in spent.items():
        told = [f"{words.duration(spell)} of {work}" for work, spell in works.items()]
        yield f"Wall time, {device}", words.listed(told)
    untold = f", and whatever ran on a {UNTOLD}" if UNTOLD in spent else ""
    yield "GPU hours", f"{gpu_hours:.2f}{untold}"


def _machine(entry: Mapping[str, Any]) -> str:
    facts = {**mapping(entry.get("machine"))}
    if entry.get("torch"):
        facts["torch"] = entry["torch"]
    return ", ".join(f"{name}: {value}" for name, value in facts.items())


def _values(study: Study, key: str) -> list[str]:
    found = [
        study.facts,
        *(cell.facts for cell in study.cells),
        *(entry for run in study.runs for entry in (run.config, run.summary)),
    ]
    return sorted({str(entry[key]) for entry in found if entry.get(key)})


def _bare(value: Any) -> Any:
    """`value` with the last part of each absolute path in it: pages travel, folders tell tales."""
    if isinstance(value, Mapping):
        return {key: _bare(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_bare(inner) for inner in value]
    if isinstance(value, str):
        for path in (PurePosixPath(value), PureWindowsPath(value)):
            if path.is_absolute():
                return path.name
    return value


def seconds(entry: Mapping[str, Any]) -> float:
    """Wall time of a cell or a run; 0 where it is not stored."""
    value = entry.get("wall_s")
    return float(value) if isinstance(value, int | float) else 0.0
