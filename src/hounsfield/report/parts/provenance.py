"""Where the numbers come from: versions, hashes, seeds, machine, hours, configuration."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hounsfield.report import words
from hounsfield.report.html import Section, render
from hounsfield.report.study_folder import Study, mapping
from hounsfield.report.style import Style


def section(study: Study, style: Style) -> Section:
    """Facts as a list, then every configuration as it was resolved."""
    del style  # no figure
    configs = [("study.json", study.facts.get("config") or study.facts)]
    configs += [
        (f"{words.arm_name(run.name)}, run {run.folder.name[:8]}", run.config) for run in study.runs
    ]
    shown = [(name, json.dumps(values, indent=2, default=str)) for name, values in configs]
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
    for run in study.runs:
        machine = mapping(run.config.get("machine"))
        where = ", ".join(f"{key}: {value}" for key, value in machine.items())
        yield (
            f"Pre-training {words.arm_name(run.name)}",
            f"{run.folder.name}{f' ({where})' if where else ''}",
        )
    yield "Cells", f"{len(study.cells):,} of {study.planned_cells:,} planned"
    fine = sum(_seconds(cell.facts) for cell in study.cells)
    pre = sum(_seconds(run.summary) for run in study.runs)
    yield (
        "Wall time",
        f"{words.duration(fine)} of fine-tuning, {words.duration(pre)} of pre-training",
    )
    devices = {
        str(run.summary.get("device") or run.config.get("device") or "") for run in study.runs
    }
    on_gpu = [device for device in devices if "cuda" in device.lower() or "gpu" in device.lower()]
    yield "GPU", words.listed(sorted(on_gpu)) or "none named in the stored configurations"


def _values(study: Study, key: str) -> list[str]:
    found = [
        study.facts,
        *(cell.facts for cell in study.cells),
        *(run.config for run in study.runs),
    ]
    return sorted({str(entry[key]) for entry in found if entry.get(key)})


def _seconds(entry: Mapping[str, Any]) -> float:
    value = entry.get("wall_s")
    return float(value) if isinstance(value, int | float) else 0.0
