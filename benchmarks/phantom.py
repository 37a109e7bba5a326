"""Is the phantom hard enough, and not too hard? A network from scratch, as in the demo.

Prints the AUC by slice of both tasks at 100 and 10 % of the training patients (mean of three
repeats), for several phantom worlds, and fails where a mean over the worlds is out of bounds:
few labels must be clearly worse, all labels clearly above chance and short of perfect.
"""

import argparse
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
import polars as pl

from hounsfield.data.ingest import ingest
from hounsfield.data.phantom import phantom
from hounsfield.demo import PATIENTS, SIZE_PX
from hounsfield.study.config import StudyConfig, load_study
from hounsfield.study.plan import plan
from hounsfield.study.run import run

TASKS = ("bleed", "region")
LEAST_DROP, LEAST, MOST = 0.02, 0.7, 0.99


def auc(world: int, folder: Path, *, jobs: int) -> dict[tuple[str, float], float]:
    """(task, fraction) -> mean AUC of the repeats, in the phantom world of this seed."""
    labels = phantom(folder / "archive", patients=PATIENTS, seed=world)
    ingest([folder / "archive"], folder / "store", labels=labels, size=SIZE_PX, keep_ids=True)
    file = folder / "study.toml"
    file.write_text(resources.files("hounsfield").joinpath("demo.toml").read_text())
    settings = {"arms": ("scratch",), "fractions": (1.0, 0.1), "pretrain": {}, "primary": None}
    config = StudyConfig.model_validate({**load_study(file).model_dump(), **settings})
    run(plan(config), folder / "study", jobs=jobs)
    found = pl.read_parquet(folder / "study" / "results.parquet").filter(
        kind="level", metric="auc", level="slice"
    )
    return {(row["task"], row["fraction"]): row["estimate"] for row in found.iter_rows(named=True)}


def main() -> None:
    """Measure, print, and fail where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    worlds = []
    for world in range(chosen.worlds):
        with tempfile.TemporaryDirectory() as folder:
            worlds.append(auc(world, Path(folder), jobs=chosen.jobs))
    broken = []
    for task in TASKS:
        whole, tenth = (
            float(np.mean([one[task, fraction] for one in worlds])) for fraction in (1.0, 0.1)
        )
        print(f"phantom_{task}_auc_100: {whole:.3f} AUC")
        print(f"phantom_{task}_auc_10: {tenth:.3f} AUC")
        if not (LEAST < whole < MOST and whole - tenth > LEAST_DROP):
            broken.append(task)
    if broken:
        raise SystemExit(f"out of bounds: {', '.join(broken)}")


if __name__ == "__main__":
    main()
