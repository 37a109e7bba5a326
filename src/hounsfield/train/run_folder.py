"""What a run's folder holds: whose it is, and what a finished training leaves in it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from hounsfield.config import Config
from hounsfield.data.store import Store
from hounsfield.errors import OutputError
from hounsfield.files import read_object, sha256_of, write_json
from hounsfield.methods.base import Method
from hounsfield.models.weights_source import find
from hounsfield.models.weights_written import write_weights
from hounsfield.provenance import machine, origin
from hounsfield.train.device import kind_of
from hounsfield.train.loop import Fitted

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CONFIG, RUN, ENCODER = "config.json", "run.json", "encoder.safetensors"
TAKEN = "taken.json"  # lies in a run that a study has taken over from another, and names that
FREE = ("tensorboard", "checkpoint_every", "alarms")  # of the loop's settings: they do not decide
UNSAID = {"drop_path": 0.0}  # what a run was trained with whose `config.json` does not say
RANDOM = "random"  # the start of a pre-training from nothing
Rows = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Run:
    """A finished pre-training.

    Attributes:
        folder: Where it lies.
        steps: Updates of the weights.
        final_loss: The last line's.
        wall_s: Seconds of training, all starts together.
        images_per_s: In the last process.
    """

    folder: Path
    steps: int
    final_loss: float
    wall_s: float
    images_per_s: float


def identity(config: Config, stores: Mapping[str, Store], chosen: Rows) -> dict[str, Any]:
    """All that decides the outcome, plain: where a store lies and on what we run do not.

    Raises:
        WeightsError: The weights that it starts from are not there.
    """
    values = config.model_dump(mode="json")
    for free in ("stores", "device"):
        del values[free]
    for free in FREE:
        del values["loop"][free]
    if values["init"] != RANDOM:  # what is in it, wherever it lies
        values["init"] = find(values["init"], backbone=values["backbone"])[0].sha256
    seen = [
        {
            "store": store.hash,
            "rows": hashlib.sha256(chosen[path].tobytes()).hexdigest(),
            "slices": len(chosen[path]),
            "patients": store.index["patient"].gather(chosen[path]).n_unique(),
        }
        for path, store in stores.items()
    ]
    return {**values, "data": seen}


def refuse_others(out: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a folder of another configuration, or of something that is no run.

    Raises:
        OutputError: The message names what differs.
    """
    before = read_object(out / CONFIG).get("identity")
    if before is not None:
        changed = sorted(_differences({**UNSAID, **before}, {**UNSAID, **identity}))
        if changed:
            raise OutputError(
                f"{out} holds a run of another configuration; it differs in {'; '.join(changed)}. "
                "Choose another folder, or run with the settings of its config.json."
            )
    elif any(not path.name.startswith(".") for path in out.iterdir()):
        raise OutputError(f"{out} holds something that is no run. Choose an empty or a new folder.")


def claim(out: Path, config: Config, identity: Mapping[str, Any]) -> None:
    """Write `config.json`, unless the run has begun already."""
    if (out / CONFIG).exists():
        return
    write_json(
        out / CONFIG,
        {
            **origin(),
            "torch": torch.__version__,
            "machine": machine(),
            "config": config.model_dump(mode="json"),
            "identity": identity,
        },
    )


def leave(
    out: Path, method: Method, fitted: Fitted, *, facts: Mapping[str, str], on: "Fabric"
) -> None:
    """Write the encoder with `facts`, then `run.json`, which says that all is there.

    Args:
        out: The run's folder.
        method: As it was trained.
        fitted: What the training left besides.
        facts: What the encoder's file says of how it was made.
        on: What it ended on; an earlier start may have been on something else.
    """
    kept = method if fitted.ema is None else cast(Method, fitted.ema)
    notes = {**origin(), "method": method.name, **facts}
    write_weights(out / ENCODER, kept.backbone.net.state_dict(), notes)
    losses = [row["loss"] for row in fitted.curve if "loss" in row]
    write_json(
        out / RUN,
        {
            **origin(),
            "done": True,
            "steps": fitted.steps,
            "final_loss": losses[-1],
            "wall_s": fitted.wall_s,
            "images_per_s": fitted.images_per_s,
            "waited": fitted.waited,
            "device": kind_of(on.device),
            "processes": on.world_size,
            "sha256": sha256_of(out / ENCODER),
        },
    )


def read(out: Path) -> Run:
    """The finished run in `out`."""
    facts = json.loads((out / RUN).read_bytes())
    return Run(
        folder=out,
        steps=facts["steps"],
        final_loss=facts["final_loss"],
        wall_s=facts["wall_s"],
        images_per_s=facts["images_per_s"],
    )


def _differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {*before, *now}:
            yield from _differences(before.get(key), now.get(key), f"{place}.{key}".lstrip("."))
    elif before != now and place == "data":
        yield "data (other stores, or other slices of them)"
    elif before != now:
        yield f"{place} ({before!r} there, {now!r} now)"
