"""Scores of whole scans that outlive an interruption, so that no scan is scored twice."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hounsfield import array_file
from hounsfield.classify.scans import Scan


def keep_logits(
    folder: Path, score: Callable[[Scan], NDArray[np.float64]], *, scorer: str
) -> Callable[[Scan], NDArray[np.float64]]:
    """`score`, but for scans whose scores lie in `folder` already: those are read.

    A scan is known by its slices, not by its name: one that has changed is scored anew.

    Args:
        folder: Where a file a scan is written; made when there is one.
        score: From a scan to its logits, `(slices, classes)`.
        scorer: What scores: whatever changes the logits changes it.
    """

    def scored(scan: Scan) -> NDArray[np.float64]:
        content = hashlib.sha256(f"{scorer} {scan.units} {scan.images.shape}".encode())
        content.update(scan.images.tobytes())
        return array_file.kept(folder / f"{content.hexdigest()}.npz", lambda: score(scan))

    return scored
