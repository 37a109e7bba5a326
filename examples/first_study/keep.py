"""Keep what a judged study found as small tables that can be published: no patient is in them.

    python examples/first_study/keep.py STUDY OUT

writes `numbers.csv` (every number with its interval), `verdicts.json`, `cells.csv` (a row a
fine-tuning), `pretrainings.csv` (a row a pre-training), `watched.csv` (a row a line of its metrics:
losses and probes) and the label curves of the study's report. docs/results.md shows them, and its
tables are made from the rest.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile
from typing import Any

import polars as pl

CELL = (
    "arm", "task", "protocol", "fraction", "repeat", "fold", "status", "wall_s", "n_train_patients",
    "n_train_images", "n_val_patients", "lr", "lr_at_edge", "trials", "chosen_step",
    "train_loss_last", "train_loss_guess", "commit",
)  # fmt: skip
RUN = ("steps", "final_loss", "wall_s", "images_per_s", "commit")
LINE = ("step", "loss", "positive_first")  # of the metrics of a pre-training, beside its probes
PROBES = ("knn_auc/", "linear_auc/")


def main() -> None:
    """Write the tables."""
    study, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    pl.read_parquet(study / "results.parquet").write_csv(out / "numbers.csv", float_precision=6)
    copyfile(study / "verdicts.json", out / "verdicts.json")
    named = json.loads((study / "study.json").read_text())
    cells = [json.loads((study / f"cells/{cell}/cell.json").read_text()) for cell in named["cells"]]
    pl.DataFrame([{key: cell.get(key) for key in CELL} for cell in cells]).write_csv(
        out / "cells.csv", float_precision=4
    )
    runs = [
        {"arm": facts["name"]}
        | {key: json.loads((study / f"pretrain/{run}/run.json").read_text())[key] for key in RUN}
        for run, facts in named["pretrainings"].items()
    ]
    pl.DataFrame(runs).write_csv(out / "pretrainings.csv", float_precision=4)
    lines = [
        {"pretraining": number, "arm": facts["name"]} | line
        for number, (run, facts) in enumerate(named["pretrainings"].items())
        for line in watched(study / f"pretrain/{run}/metrics.jsonl")
    ]
    pl.DataFrame(lines, infer_schema_length=None).write_csv(out / "watched.csv", float_precision=4)
    for figure in (study / "report" / "figures").glob("curve-*-slice.png"):
        copyfile(figure, out / figure.name)


def watched(metrics: Path) -> Iterator[dict[str, Any]]:
    """What a pre-training wrote of its losses and its probes, a line at a time."""
    for text in metrics.read_text().splitlines():
        line = json.loads(text)
        yield {key: line[key] for key in line if key in LINE or key.startswith(PROBES)}


if __name__ == "__main__":
    main()
