"""The data: from files to slices with every loss, who trains, chooses and judges, and leaks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from hounsfield.data.split import PARTS
from hounsfield.report import html, words
from hounsfield.report.html import Grid, Section, grid, render
from hounsfield.report.pictures import picture
from hounsfield.report.study_folder import Cell, Study, Task, mapping
from hounsfield.report.style import Style

TRAITS = {
    "units": "pixel values",
    "vendors": "vendors",
    "kernels": "kernels",
    "contrast": "contrast",
    "sex": "sex",
}


def section(study: Study, style: Style) -> Section:
    """Stores and their flow, patients per split and per fraction, a montage, leaks."""
    del style  # no figure
    stores = mapping(study.facts.get("stores"))
    body = render(
        "data",
        stores=[_store(name, mapping(facts)) for name, facts in stores.items()],
        tasks=[{"name": task.name, "tables": [*_tables(study, task)]} for task in study.tasks],
        montage=[
            shown
            for entry in study.pictures.get("montage") or ()
            if (shown := picture(study, entry)) is not None
        ],
        leaks=[*leaks(study)],
    )
    return Section("data", "Data", body)


def leaks(study: Study) -> Iterator[str]:
    """What was checked about patients on both sides of a border, in words."""
    splits = study.splits
    if {"task", "fold", "split", "patient"} <= set(splits.columns) and len(splits):
        twice = (
            splits.group_by("task", "fold", "patient")
            .agg(pl.col("split").n_unique())
            .filter(pl.col("split") > 1)
        )
        if len(twice):
            patients = words.plural(twice["patient"].n_unique(), "patient")
            yield f"{patients} in two parts of a split. This is a leak."
        else:
            count = splits["patient"].n_unique()
            yield (
                f"No patient stands in two parts of a split, in any task and fold: checked for "
                f"{words.plural(count, 'patient')}."
            )
    if {"fraction", "patient", "split"} <= set(study.ladders.columns) and len(study.ladders):
        yield from _ladder_leak(study)
    looked = study.facts.get("leaks")
    if looked == []:
        yield (
            "No image, near-duplicate or patient of a test set was found among what anything in "
            "this study was trained on."
        )
    if looked:
        yield from (one for one in map(str, study.facts.get("warnings") or ()) if "Leak:" in one)
    yield from _kept_out(study)


def _kept_out(study: Study) -> Iterator[str]:
    """How many patients the pre-trainings of an arm, one a fold or a repeat, did not see."""
    counts: dict[str, list[int]] = {}
    for run in map(mapping, mapping(study.facts.get("pretrainings")).values()):
        if isinstance(run.get("patients_kept_out"), int):
            counts.setdefault(str(run.get("name", "")), []).append(run["patients_kept_out"])
    for name, kept in counts.items():
        each = f"each of the {len(kept)} pre-trainings" if len(kept) > 1 else "the pre-training"
        yield (
            f"Kept out of {each} of {words.arm_name(name)}: "
            f"{words.spanned(kept, 'patient')} of the labelled tasks."
        )


def _ladder_leak(study: Study) -> Iterator[str]:
    keys = ["task", "fold", "patient"]
    test = study.splits.filter(pl.col("split") == "test").select(keys)
    both = study.ladders.join(test, on=keys, how="semi") if len(test) else study.ladders.clear()
    if len(both):
        patients = words.plural(both["patient"].n_unique(), "test patient")
        yield f"{patients} on a ladder. This is a leak."
    else:
        yield "No test patient stands on a training ladder, at any fraction."


def _store(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    flow = mapping(facts.get("flow"))
    stations = {**flow, **{key: facts[key] for key in ("slices",) if flow and key in facts}}
    traits = [
        (label, ", ".join(f"{value or 'not told'} ({count:,})" for value, count in counts.items()))
        for key, label in TRAITS.items()
        if (counts := mapping(facts.get(key)))
    ]
    spacing = [
        (f"spacing, {axis}", f"{low:.3g} to {high:.3g} mm, median {middle:.3g} mm")
        for axis, (low, middle, high) in mapping(facts.get("spacing_mm")).items()
    ]
    refused = mapping(facts.get("refused"))
    sizes = [
        words.plural(facts[key], one)
        for key, one in (("slices", "slice"), ("patients", "patient"))
        if isinstance(facts.get(key), int)
    ]
    return {
        "name": name,
        "sizes": words.listed(sizes),
        "flow": [(key.replace("_", " "), f"{count:,}") for key, count in stations.items()],
        "traits": [*traits, *spacing],
        "refused": grid(
            "Files left out, by reason",
            ["reason", "files"],
            [[reason, f"{count:,}"] for reason, count in refused.items()],
        ),
    }


def _tables(study: Study, task: Task) -> Iterator[Grid]:
    counts = task.facts.get("counts")
    folds = [mapping(one) for one in counts] if isinstance(counts, list) else []
    if folds:
        yield grid(
            f"{task.name}: patients and images by part and class",
            ["part", "patients", *(f"{name}: patients" for name in task.classes),
             *(f"{name}: images" for name in task.classes), "prevalence in images"],
            [_part(study, task, folds, part) for part in PARTS],
        )  # fmt: skip
    elif len(study.splits):
        yield grid(
            f"{task.name}: patients by part", ["part", "patients"],
            [[part, _patients(study, task, part)] for part in PARTS],
        )  # fmt: skip
    rungs = [
        _rung(task, fraction, cells)
        for fraction in study.fractions
        if (cells := [c for c in study.cells if (c.task, c.fraction) == (task.name, fraction)])
    ]
    if rungs:
        heads = ["labels", "patients", "images", "validation patients", "prevalence in images"]
        yield grid(f"{task.name}: what each fraction trains on, over repeats", heads, rungs)


def _part(
    study: Study, task: Task, folds: Sequence[Mapping[str, Any]], part: str
) -> list[str | html.Cell]:
    places = range(len(task.classes))
    patients = [_counted(fold, part, "patients", task) for fold in folds]
    images = [_counted(fold, part, "images", task) for fold in folds]
    return [
        part,
        _patients(study, task, part),
        *(words.span([fold[place] for fold in patients]) for place in places),
        *(words.span([fold[place] for fold in images]) for place in places),
        _shares(task, [sum(fold[place] for fold in images) for place in places]),
    ]


def _counted(fold: Mapping[str, Any], part: str, what: str, task: Task) -> list[int]:
    """Patients or images of each class in a part of a fold, in the order of the classes."""
    found = [mapping(one).get(what) for one in mapping(fold.get(part)).values()]
    counts = [count if isinstance(count, int) else 0 for count in found]
    return [*counts, *[0] * len(task.classes)][: len(task.classes)]


def _shares(task: Task, images: Sequence[int]) -> html.Cell:
    """The prevalence, in a cell that is wide where it holds many classes."""
    return html.Cell(_prevalence(task, images), style="m" if len(images) > 2 else "")


def _prevalence(task: Task, images: Sequence[int]) -> str:
    """Of the second class of two; of every class where there are more."""
    total = sum(images)
    if not total:
        return words.DASH
    if len(images) == 2:
        return words.percent(images[1] / total)
    return ", ".join(
        f"{name} {words.percent(count / total)}"
        for name, count in zip(task.classes, images, strict=False)
    )


def _patients(study: Study, task: Task, part: str) -> str:
    if not {"task", "fold", "split", "patient"} <= set(study.splits.columns):
        return words.DASH
    mine = study.splits.filter((pl.col("task") == task.name) & (pl.col("split") == part))
    return words.span(mine.group_by("fold").len()["len"].to_list())


def _rung(task: Task, fraction: float, cells: Sequence[Cell]) -> list[str | html.Cell]:
    def span(fact: str) -> str:
        return words.span([c.facts[fact] for c in cells if isinstance(c.facts.get(fact), int)])

    shares = [
        c.facts["n_train_images_by_class"] for c in cells if "n_train_images_by_class" in c.facts
    ]
    return [
        words.percent(fraction),
        span("n_train_patients"),
        span("n_train_images"),
        span("n_val_patients"),
        _shares(task, [sum(column) for column in zip(*shares, strict=True)]),
    ]
