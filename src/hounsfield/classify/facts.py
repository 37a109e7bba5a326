"""What a classifier knows of itself: the scans it was made for, its calibration, its scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hounsfield.classify.calibrate import Calibration, calibrate, log_loss, shares_of
from hounsfield.classify.kept import Facts
from hounsfield.classify.units import Units, units_of
from hounsfield.data.split import PARTS, Split
from hounsfield.data.store import Store
from hounsfield.encoder import Encoder
from hounsfield.judge.declared import SCRATCH
from hounsfield.judge.view import LEVELS, Level
from hounsfield.models.weights_source import Card
from hounsfield.study.scores import macro_auc
from hounsfield.study.task import Task
from hounsfield.study.trained import ENOUGH, Trained

N_PATIENTS = "n_patients"  # stands among the metrics of a part


def facts_of(
    task: Task, store: Store, encoder: Encoder, split: Split, trained: Trained
) -> tuple[Facts, tuple[str, ...]]:
    """What a classifier shall know of itself, and what its user must know.

    Args:
        task: That it was trained on.
        store: Of the task.
        encoder: That it started from.
        split: Who trained, chose and judged.
        trained: With the logits of validation and test.
    """
    places = {part: task.rows(getattr(split, part)) for part in PARTS}
    units = {part: units_of(task, rows) for part, rows in places.items()}
    calibration, notes = _calibrations(task, units, trained.val)
    seen = store.index[task.images[places["train"].tolist()]["slice"].to_list()]
    spacing = seen.select("spacing_y_mm", "spacing_x_mm").unpivot()["value"].drop_nulls()
    facts = Facts(
        task=task.name,
        classes=task.classes,
        level=task.config.level,
        pool=task.config.pool,
        slice_size=store.size,
        grid_mm=store.facts.spacing_mm,
        crop=store.facts.crop,
        spacing_mm=(float(spacing.min()), float(spacing.max())) if len(spacing) else None,
        units=tuple(sorted(seen["units"].unique())),
        calibration=calibration,
        stores=tuple(dict.fromkeys([*encoder.card.stores, store.hash])),
        patients={part: len(getattr(split, part)) for part in PARTS},
        images={part: len(rows) for part, rows in places.items()},
        metrics={
            part: _metrics(task, units[part], logits, calibration)
            for part, logits in (("val", trained.val), ("test", trained.test))
            if len(logits)
        },
        weights=_without_places(encoder.card),
    )
    return facts, notes


def _calibrations(
    task: Task,
    units: Mapping[str, Mapping[Level, Units]],
    val_logits: NDArray[np.float32],
) -> tuple[dict[Level, Calibration], tuple[str, ...]]:
    """A calibration for each level with enough validation patients of every class, and why not."""
    found: dict[Level, Calibration] = {}
    notes: list[str] = []
    for level in LEVELS:
        train, val = units["train"].get(level), units["val"].get(level)
        if train is None or val is None:
            notes.append(f"probabilities by {level} are not calibrated: no labels by {level}")
            continue
        fewest = min(val.patients_of(label) for label in range(len(task.classes)))
        if fewest < ENOUGH:
            notes.append(
                f"probabilities by {level} are not calibrated: a class has {fewest} validation "
                f"patients and needs {ENOUGH}"
            )
            continue
        logits = val.pooled(val_logits, task.config.pool)
        found[level] = calibrate(logits, val, shares_of(train, len(task.classes)))
    return found, tuple(notes)


def _metrics(
    task: Task,
    units: Mapping[Level, Units],
    logits: NDArray[np.float32],
    calibration: Mapping[Level, Calibration],
) -> dict[str, dict[str, float]]:
    """Level -> AUC where every class is there, log loss where it is calibrated, and patients."""
    found: dict[str, dict[str, float]] = {}
    for level, own in units.items():
        pooled = own.pooled(logits, task.config.pool)
        values: dict[str, float] = {N_PATIENTS: len(set(own.patients))}
        if len(np.unique(own.labels)) == len(task.classes):
            values["auc"] = macro_auc(pooled, own.labels)
        if level in calibration:
            values["log_loss"] = log_loss(calibration[level].log_probabilities(pooled), own)
        found[level] = values
    return found


def _without_places(card: Card) -> dict[str, Any]:
    """The card as plain values, without the folders of this machine."""
    hub_or_word = card.source if card.origin.startswith(("Hugging", SCRATCH)) else card.file
    return {**card.to_json(), "source": hub_or_word}
