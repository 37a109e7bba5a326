"""What frozen networks, and the histogram, see in a task's images: kept, so that cells share it.

Processes that need the same at the same time may each look; they see, and write, the same.
"""

from pathlib import Path

from hounsfield.files import disk_errors
from hounsfield.models.backbone import create
from hounsfield.study.config import HISTOGRAM
from hounsfield.study.controls import BINS
from hounsfield.study.frozen import PROTOCOLS
from hounsfield.study.hashes import hash_of
from hounsfield.study.plan import WITHOUT_NETWORK, Cell, Plan


def place(cell: Cell, folder: Path) -> Path:
    """The file in the study's `folder` with the features that the cell's arm starts from."""
    same = ("recipe", "arm", "task", "backbone", "image_size")
    start = [cell.settings.get(key) for key in same]
    chance = cell.seed if cell.kind == "scratch" else None
    return folder / "features" / f"{hash_of([start, chance])}.npz"


def size_bytes(plan: Plan, folder: Path) -> int:
    """What the files that are not there yet will take."""
    length = create(plan.config.backbone).embed_dim
    return sum(
        4 * (BINS if cell.arm == HISTOGRAM else length) * len(plan.tasks[cell.task].images)
        for path, cell in _needed(plan, folder).items()
        if not path.exists()
    )


def drop_others(plan: Plan, folder: Path) -> None:
    """Remove what no cell of the plan needs any more: it can be looked at anew.

    Raises:
        DiskError: A file cannot be removed.
    """
    needed = _needed(plan, folder)
    for path in (folder / "features").glob("*.npz"):
        if path not in needed:
            with disk_errors(path):
                path.unlink()


def _needed(plan: Plan, folder: Path) -> dict[Path, Cell]:
    """The files that the plan's cells share, and one of the cells of each."""
    return {
        place(cell, folder): cell
        for cell in plan.cells
        if cell.arm == HISTOGRAM
        or (cell.kind not in WITHOUT_NETWORK and cell.protocol in PROTOCOLS)
    }
