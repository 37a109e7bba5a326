"""The classifier that is kept: an encoder, a linear head, and the scans that it was made for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError
from scipy.special import softmax
from torch import nn

from hounsfield.classify.calibrate import Calibration
from hounsfield.config import Config
from hounsfield.data.resample import Crop
from hounsfield.encoder import Encoder, load_encoder
from hounsfield.errors import WeightsError
from hounsfield.judge.view import Level
from hounsfield.models.weights_file import read_weights
from hounsfield.models.weights_written import write_weights
from hounsfield.provenance import origin
from hounsfield.study.task import Level as TaskLevel
from hounsfield.study.task import Pooling

FILE = "classifier.safetensors"
BACKBONE, HEAD = "backbone.", "head."  # what stands before the names of its tensors


class Facts(Config):
    """What a classifier knows of itself; written into the header of its file.

    Attributes:
        task: The label that it was trained on.
        classes: Names, in the order of the head.
        level: What carried one label in training: a slice, a series or a patient.
        pool: How the logits of slices become a patient's.
        slice_size: Height and width of the stored slices that it was trained on, in pixels.
        grid_mm: The pixel spacing that they were resampled to; None where they were not.
        crop: What they were cropped to; None where they were not.
        spacing_mm: Least and greatest pixel spacing among them; None where it was not known.
        units: The units among them: HU, display values, or both.
        calibration: Level -> how its logits become probabilities; a level that could not be
            calibrated is missing.
        stores: Hashes of the stores that were seen, labelled ones and those of the weights.
        patients, images: Part -> how many.
        metrics: Part -> level -> metric -> value, each with its `n_patients`.
        weights: The card of the weights that it started from.
    """

    task: str
    classes: tuple[str, ...] = Field(min_length=2, max_length=1000)
    level: TaskLevel = "slice"
    pool: Pooling = "mean_logit"
    slice_size: PositiveInt
    grid_mm: PositiveFloat | None = None
    crop: Crop | None = None
    spacing_mm: tuple[PositiveFloat, PositiveFloat] | None = None
    units: tuple[Literal["hu", "display"], ...] = Field(min_length=1)
    calibration: dict[Level, Calibration] = Field(default_factory=dict)
    stores: tuple[str, ...] = ()
    patients: dict[str, int] = Field(default_factory=dict)
    images: dict[str, int] = Field(default_factory=dict)
    metrics: dict[str, dict[str, dict[str, float]]] = Field(default_factory=dict)
    weights: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """A classifier that can be used.

    Attributes:
        encoder: Backbone, image size and window.
        head: From features to a logit a class.
        facts: What it knows of itself.
    """

    encoder: Encoder
    head: nn.Linear
    facts: Facts

    @torch.inference_mode()
    def logits(self, images: NDArray[np.int16], is_hu: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Logits `(batch, classes)` of slices `(batch, height, width)` as a store has them."""
        features = torch.from_numpy(self.encoder.features(images, is_hu))
        return self.head(features.to(self.head.weight.device)).cpu().numpy()

    def probabilities(self, logits: NDArray[np.float64], level: Level) -> NDArray[np.float64]:
        """Probabilities `(units, classes)`; calibrated where `facts.calibration` has the level."""
        calibration = self.facts.calibration.get(level)
        return softmax(logits, axis=1) if calibration is None else calibration(logits)


def save(kept: Kept, folder: Path) -> Path:
    """Write the classifier's file into `folder`, whole; return its path.

    Raises:
        DiskError: The folder cannot be written.
    """
    backbone, head = kept.encoder.backbone, kept.head
    tensors = {BACKBONE + name: value for name, value in backbone.net.state_dict().items()}
    tensors |= {HEAD + name: value for name, value in head.state_dict().items()}
    low, high = kept.encoder.window_hu
    header = {
        **origin(),
        "backbone": backbone.name,
        "channels": str(backbone.channels),
        "image_size": str(kept.encoder.image_size),
        "window_hu": f"{low},{high}",
        "origin": f"a hounsfield classifier of {kept.facts.task}",
        "stores": json.dumps(kept.facts.stores),
        "classifier": kept.facts.model_dump_json(),
    }
    write_weights(folder / FILE, tensors, header)
    return folder / FILE


def load(run: str | Path, *, device: str = "cpu") -> Kept:
    """The classifier in a run folder, or in its file.

    Raises:
        WeightsError: There is no classifier, or it is damaged.
    """
    path = Path(run) / FILE if Path(run).is_dir() else Path(run)
    if not path.is_file():
        raise WeightsError(
            f"{run} holds no classifier ({FILE}). Give a folder that `hounsfield finetune` made; "
            "if it is not finished, run the same command again."
        )
    file = read_weights(path)
    try:
        facts = Facts.model_validate_json(file.metadata.get("classifier", ""))
    except ValidationError as error:
        raise WeightsError(
            f"{path} says nothing useful of its classes ({error.error_count()} faults): it is no "
            "classifier of ours, or of another version. Run `hounsfield finetune` again."
        ) from None
    encoder = load_encoder(path, device=device)
    head = nn.Linear(encoder.backbone.embed_dim, len(facts.classes))
    wanted = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    found = {name: file.tensors.get(HEAD + name) for name in wanted}
    for name, shape in wanted.items():
        value = found[name]
        if value is None or tuple(value.shape) != shape or not bool(torch.isfinite(value).all()):
            raise WeightsError(
                f"{path} is damaged: {HEAD}{name} is missing, not finite, or not {shape}."
            )
    head.load_state_dict(found)
    return Kept(encoder, head.eval().to(device), facts)
