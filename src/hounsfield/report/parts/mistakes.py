"""The most confident mistakes, as pictures, with what the model looked at where that is known."""

from collections.abc import Mapping, Sequence
from typing import Any

from hounsfield.report import words
from hounsfield.report.html import Section, render
from hounsfield.report.pictures import MOST, Picture, picture
from hounsfield.report.study_folder import Study, Task
from hounsfield.report.style import Style


def section(study: Study, style: Style) -> Section:
    """The pictures that the study kept, task by task."""
    del style  # no figure
    entries = [
        entry for entry in study.pictures.get("mistakes") or () if isinstance(entry, Mapping)
    ]
    blocks = [
        {"task": task.name, "pictures": _pictures(study, task, entries)} for task in study.tasks
    ]
    blocks = [block for block in blocks if block["pictures"]]
    seen = any(len(one.images) > 1 for block in blocks for one in block["pictures"])  # type: ignore[attr-defined]
    body = render("mistakes", blocks=blocks, saliency=seen)
    return Section("mistakes", "Confident mistakes", body)


def _pictures(study: Study, task: Task, entries: Sequence[Mapping[str, Any]]) -> list[Picture]:
    mine = [entry for entry in entries if entry.get("task") == task.name][:MOST]
    shown = (picture(study, entry, title=_title(task, entry), text=_text(entry)) for entry in mine)
    return [one for one in shown if one is not None]


def _title(task: Task, entry: Mapping[str, Any]) -> str:
    predicted, true = (_class(task, entry.get(key)) for key in ("predicted", "label"))
    chance = entry.get("probability")
    sure = f" ({words.percent(round(chance, 3))})" if isinstance(chance, float) else ""
    return f"Said {predicted}{sure}, was {true}"


def _text(entry: Mapping[str, Any]) -> str:
    parts = [words.arm_name(str(entry.get("arm", "")))]
    if isinstance(entry.get("fraction"), int | float):
        parts.append(f"{words.percent(float(entry['fraction']))} of the labels")
    if isinstance(entry.get("repeat"), int):
        parts.append(f"map of repeat {entry['repeat'] + 1}")
    for name in ("patient", "slice"):
        if entry.get(name) is not None:
            parts.append(f"{name} {entry[name]}")
    return ", ".join(part for part in parts if part)


def _class(task: Task, label: Any) -> str:
    if isinstance(label, int) and 0 <= label < len(task.classes):
        return task.classes[label]
    return str(label)
