"""What an arm starts from: a backbone with its initial weights."""

import copy
from collections.abc import Callable
from pathlib import Path

from hounsfield.models.backbone import Backbone, create
from hounsfield.models.pretrained import load_into
from hounsfield.seeding import seed_of
from hounsfield.study.config import IMAGENET, StudyConfig
from hounsfield.study.plan import Cell


def backbone_of(cell: Cell, config: StudyConfig, folder: Path) -> Callable[[], Backbone]:
    """A maker of fresh copies of the backbone that the cell's arm starts from.

    Args:
        cell: Whose arm.
        config: The study.
        folder: The study's folder, where its pre-trainings lie.

    Raises:
        WeightsError: The arm's weights do not fill the backbone, or cannot be had.
    """
    backbone = create(config.backbone, seed=seed_of(cell.seed, "weights"))
    if cell.pretraining is not None:
        load_into(backbone, folder / "pretrain" / cell.pretraining)
    elif cell.kind == "weights":
        load_into(backbone, config.weights[cell.arm])
    elif cell.kind == "imagenet":
        load_into(backbone, IMAGENET)
    return lambda: copy.deepcopy(backbone)
