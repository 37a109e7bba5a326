"""Thumbnails for the report: tasks' images, surest mistakes, what pre-trainings draw."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax

from hounsfield.data.batches import Pool
from hounsfield.data.store import Store
from hounsfield.data.window import to_unit, window_of
from hounsfield.errors import WeightsError
from hounsfield.files import write_json, write_whole
from hounsfield.seeding import stream
from hounsfield.study.plan import Plan
from hounsfield.study.pretraining import Pretraining
from hounsfield.study.saliency import take_up_maps
from hounsfield.study.task import Task
from hounsfield.train.reconstruct import drawings, draws, some_of
from hounsfield.train.run_folder import RUN

SIDE_PX = 128
OF_A_CLASS = 4
MISTAKES = 4  # of an arm on a task
DRAWN = 4  # slices of a pre-training
DRAWINGS = ("file", "visible", "drawn")  # the keys of their pictures


def write_pictures(plan: Plan, out: Path) -> None:
    """Write `pictures/pictures.json` and the PNG files that it names.

    The mistakes are of the primary protocol at the largest fraction: of the test units that an
    arm gets wrong on the mean over its repeats, those with the highest probability. Maps of theirs
    that were drawn before are kept.
    """
    folder = out / "pictures"
    paths = {path for task in plan.tasks.values() for path in (task.store, task.external) if path}
    stores = {path: Store.open(path) for path in sorted(paths)}

    def kept(task: Task, row: dict[str, Any]) -> dict[str, Any]:
        store = stores[task.external if row["outside"] and task.external else task.store]
        name = f"{task.name}_{'outside_' if row['outside'] else ''}{row['slice']}.png"
        write_whole(folder / name, _seen(store, task, row, plan.config.image_size))
        title = f"{task.name}: {task.classes[row['label']]}"
        return {"file": name, "title": title, "text": f"patient {row['patient']}"}

    mistakes = [
        {**facts, **kept(plan.tasks[facts["task"]], row)} for facts, row in _mistakes(plan, out)
    ]
    take_up_maps(plan, folder, mistakes)
    lists = {
        "montage": [kept(*example) for example in _examples(plan)],
        "reconstructions": [*_reconstructions(plan, out)],
        "mistakes": mistakes,
    }
    write_json(folder / "pictures.json", lists)


def _examples(plan: Plan) -> Iterator[tuple[Task, dict[str, Any]]]:
    """A few training images of every class of every task, each of another patient."""
    for task in plan.tasks.values():
        train = plan.splits[task.name, 0].train
        rows = task.images[task.rows(train).tolist()]
        chance = stream(plan.config.seed, "montage", task.name)
        for label in range(len(task.classes)):
            some = rows.filter(label=label)
            some = some[chance.permutation(len(some)).tolist()]
            for row in some.unique("patient", keep="first", maintain_order=True)[
                :OF_A_CLASS
            ].iter_rows(named=True):
                yield task, row


def _mistakes(plan: Plan, out: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    protocol = plan.primary.protocol if plan.primary else plan.config.protocols[0]
    for task in plan.tasks.values():
        for arm in plan.config.arms:
            tables = [
                pl.read_parquet(path).filter(split="test")
                for cell in plan.cells
                if (cell.task, cell.arm, cell.protocol) == (task.name, arm, protocol)
                and cell.fraction == plan.config.fractions[0]
                and (path := out / "cells" / cell.hash / "scores.parquet").exists()
            ]
            if tables:
                yield from _surest(plan, task, arm, pl.concat(tables))


def _surest(
    plan: Plan, task: Task, arm: str, scores: pl.DataFrame
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    mean = scores.group_by("slice", "patient", "label", maintain_order=True).agg(
        pl.col("^logit_.*$").mean()
    )
    chances = softmax(mean.select("^logit_.*$").to_numpy().astype(np.float64), axis=1)
    said = chances.argmax(axis=1)
    wrong = np.flatnonzero(said != mean["label"].to_numpy())
    for place in wrong[np.argsort(-chances[wrong, said[wrong]], kind="stable")][:MISTAKES].tolist():
        number, patient, label = mean.row(place)[:3]
        facts = {
            "task": task.name,
            "arm": arm,
            "fraction": plan.config.fractions[0],
            "patient": patient,
            "slice": number,
            "label": label,
            "predicted": int(said[place]),
            "probability": float(chances[place, said[place]]),
        }
        same = (pl.col("slice") == number) & (pl.col("patient") == patient)
        yield facts, task.images.filter(same).row(0, named=True)


def _reconstructions(plan: Plan, out: Path) -> Iterator[dict[str, Any]]:
    """What the first run of each pre-training that draws made of slices it may have seen."""
    first: dict[str, Pretraining] = {}
    for one in plan.pretrainings.values():
        first.setdefault(one.name, one)
    for one in first.values():
        if draws(one.config.method) and (one.place(out) / RUN).is_file():
            try:
                yield from _drawn(one, out)
            except WeightsError:  # an ended run needs its checkpoints no more: they may be gone
                continue


def _drawn(one: Pretraining, out: Path) -> Iterator[dict[str, Any]]:
    """The entries of an ended run; its hash names its pictures, so they are made once.

    Raises:
        WeightsError: The run has no sound checkpoint.
    """
    run, folder, rows = one.place(out), out / "pictures", one.rows()
    pool = Pool([Store.open(Path(path)) for path in rows], list(rows.values()))
    places = some_of(pool, slices=DRAWN, seed=one.config.seed)
    files = [{key: f"{one.hash}_{n}_{key}.png" for key in DRAWINGS} for n in range(len(places))]
    if not all((folder / name).exists() for named in files for name in named.values()):
        made = drawings(run, pool, places, seed=one.config.seed)
        for n, named in enumerate(files):
            for key, images in zip(DRAWINGS, (made.whole, made.visible, made.drawn), strict=True):
                write_whole(folder / named[key], _png(images[n], side=len(images[n])))
    for named, place in zip(files, places.tolist(), strict=True):
        store, row = pool.stores[pool.store_of[place]], int(pool.rows[place])
        patient = store.index["patient"][row]
        yield {**named, "arm": one.name, "run": one.hash, "patient": patient, "slice": row}


def _seen(store: Store, task: Task, row: dict[str, Any], size: int) -> bytes:
    """The image through the task's window, no larger than networks see it."""
    pixels = torch.from_numpy(store.read(np.array([row["slice"]])))[:, None]
    is_hu = torch.tensor([row["units"] == "hu"])
    unit = to_unit(pixels, is_hu, window_of(task.config.window))[0, 0]
    return _png((unit.numpy() * 255).round().astype(np.uint8), side=size)


def _png(pixels: NDArray[np.uint8], *, side: int) -> bytes:
    """A square PNG of greys `(height, width)` or colours `(height, width, 3)`."""
    side = min(SIDE_PX, side)
    content = io.BytesIO()
    Image.fromarray(pixels).resize((side, side)).save(content, format="PNG", optimize=True)
    return content.getvalue()
