"""Studies that were never trained: the files that a study leaves, with scores drawn by hand."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest


@dataclass
class FakeStudy:
    """What to write; `write(folder)` does, cell by cell as `hounsfield study` would."""

    arms: tuple[str, ...] = ("scratch", "moco_v2", "spark")
    fractions: tuple[float, ...] = (1.0, 0.25, 0.1)
    repeats: int = 3
    folds: int = 0
    patients: int = 24
    classes: int = 2
    protocols: tuple[str, ...] = ("fair",)
    skill: dict = field(default_factory=dict)  # (arm, fraction) -> separation of the classes
    primary: dict = field(default_factory=dict)
    seed: int = 0
    without: set = field(default_factory=set)  # (arm, fraction, repeat) of failed cells
    slices: tuple[int, int] = (4, 9)

    def write(self, folder: Path) -> Path:
        rng = np.random.default_rng(self.seed)
        owner = np.repeat(np.arange(self.patients), rng.integers(*self.slices, self.patients))
        ill = rng.permutation(self.patients) % self.classes
        labels = np.where(rng.random(len(owner)) < 0.6, ill[owner], 0)
        if self.classes > 2:
            labels = ill[owner]
        person = rng.normal(size=(self.patients, self.classes))[owner]
        seen = {arm: rng.normal(size=(self.patients, self.classes))[owner] for arm in self.arms}
        (folder / "cells").mkdir(parents=True)
        contrast = {"arm": self.arms[-1], "baseline": self.arms[0]}
        primary = {
            **contrast,
            "task": "bleed",
            "protocol": self.protocols[0],
            "metric": "auc",
            "level": "slice",
            "fraction": min(self.fractions),
            "family": [[arm, self.arms[0]] for arm in self.arms[1:]],
            "hypotheses": [[self.arms[-1], self.arms[1]]],
            **self.primary,
        }
        facts = {
            "arms": list(self.arms),
            "fractions": list(self.fractions),
            "repeats": self.repeats,
            "folds": self.folds,
            "protocols": list(self.protocols),
            "tasks": {"bleed": {"classes": [f"c{k}" for k in range(self.classes)]}},
            "primary": primary,
        }
        (folder / "study.json").write_text(json.dumps(facts))
        for place in self.places():
            arm, fraction, _, fold, _ = place
            here = np.flatnonzero(owner % max(self.folds, 1) == fold)
            skill = self.skill.get((arm, fraction), 1.0)
            noise = rng.normal(size=(len(owner), self.classes))
            logits = skill * np.eye(self.classes)[labels] + 0.4 * (person + seen[arm] + noise)
            self.write_cell(folder, place, here, owner[here], labels[here], logits[here])
        return folder

    def places(self):
        for protocol in self.protocols:
            for arm in self.arms:
                for fraction in self.fractions:
                    for repeat in range(self.repeats):
                        for fold in range(max(self.folds, 1)):
                            yield arm, fraction, repeat, fold, protocol

    def write_cell(self, folder, place, slices, owner, labels, logits):
        arm, fraction, repeat, fold, protocol = place
        cell = folder / "cells" / hashlib.sha256(repr(place).encode()).hexdigest()[:16]
        cell.mkdir()
        failed = (arm, fraction, repeat) in self.without
        facts = {
            "arm": arm,
            "task": "bleed",
            "protocol": protocol,
            "fraction": fraction,
            "repeat": repeat,
            "fold": fold,
            "status": "failed" if failed else "done",
            "reason": "the loss was not finite" if failed else "",
            "n_train_patients": round(40 * fraction),
            "n_train_images": round(400 * fraction),
        }
        (cell / "cell.json").write_text(json.dumps(facts))
        if failed:
            return
        scores = {f"logit_{k}": logits[:, k].astype(np.float32) for k in range(self.classes)}
        test = pl.DataFrame(
            {
                "split": ["test"] * len(slices),
                "slice": slices.astype(np.int64),
                "patient": [f"p{number:03}" for number in owner],
                "label": labels.astype(np.int32),
                **scores,
            }
        )
        val = test.head(3).with_columns(pl.lit("val").alias("split"), label=1 - pl.col("label"))
        pl.concat([val.cast(test.schema), test]).write_parquet(cell / "scores.parquet")


@pytest.fixture(scope="session")
def fake_study():
    return FakeStudy
