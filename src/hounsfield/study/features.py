"""What frozen networks see in a task's images: looked at once, whichever process is first."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hounsfield.files import write_whole
from hounsfield.models.backbone import create
from hounsfield.study.frozen import PROTOCOLS
from hounsfield.study.hashes import hash_of
from hounsfield.study.plan import WITHOUT_NETWORK, Cell, Plan


def place(cell: Cell, folder: Path) -> Path:
    """The file in the study's `folder` with the features that the cell's arm starts from."""
    same = ("recipe", "arm", "task", "backbone", "image_size")
    start = [cell.settings.get(key) for key in same]
    chance = cell.seed if cell.kind == "scratch" else None
    return folder / "features" / f"{hash_of([start, chance])}.npz"


def kept(path: Path, look: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """The features `(images, length)` in `path`, or those that `look` gives, left there.

    Raises:
        DiskError: The file cannot be written.
    """
    try:
        with np.load(path) as archive:  # it checks the checksum of what it reads
            return archive["features"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        features = look()  # nobody was first, or the file is damaged
    content = io.BytesIO()
    np.savez(content, features=features)
    write_whole(path, content.getvalue())
    return features


def size_bytes(plan: Plan, folder: Path) -> int:
    """What the files that are not there yet will take."""
    networks = (cell for cell in plan.cells if cell.kind not in WITHOUT_NETWORK)
    frozen = [cell for cell in networks if cell.protocol in PROTOCOLS]
    images = {place(cell, folder): len(plan.tasks[cell.task].images) for cell in frozen}
    if not images:
        return 0
    length = create(plan.config.backbone).embed_dim
    return sum(4 * length * count for path, count in images.items() if not path.exists())
