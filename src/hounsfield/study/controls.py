"""Arms that see next to nothing: where they do well, a task can be solved without looking.

They are logistic regressions, fitted as the protocol `linear` is, on one of

- `histogram`: how often each grey level occurs in the image, but not where;
- `position`: where the slice lies in its volume, but not what it shows.
"""

import numpy as np
from numpy.typing import NDArray

from hounsfield.data.window import to_unit
from hounsfield.study.images import Images
from hounsfield.study.task import Task

BINS = 32
DEGREE = 4  # of the polynomial in the position: a lesion may lie in the middle of its volume
AT_ONCE = 1024


def histogram(images: Images) -> NDArray[np.float32]:
    """Shares `(images, BINS)` of the pixels in equal parts of the window."""
    shares = []
    for first in range(0, len(images.pixels), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        unit = to_unit(images.pixels[part], images.is_hu[part], images.window)
        bins = (unit.flatten(1).cpu().numpy() * BINS).astype(np.int64).clip(max=BINS - 1)
        own = bins + BINS * np.arange(len(bins))[:, None]  # each image counts into its own bins
        counts = np.bincount(own.ravel(), minlength=BINS * len(bins)).reshape(-1, BINS)
        shares.append(counts / bins.shape[1])
    return np.concatenate(shares).astype(np.float32)


def position(task: Task) -> NDArray[np.float32]:
    """Powers `(images, DEGREE)` of the slice's rank in its volume, from -1 at the feet to 1."""
    rank = task.images["rank"].to_numpy() * 2 - 1
    return np.stack([rank**power for power in range(1, DEGREE + 1)], axis=1).astype(np.float32)


def order_is_known(task: Task) -> bool:
    """Whether every image of the task has a known place in its volume."""
    return task.images["rank"].null_count() == 0
