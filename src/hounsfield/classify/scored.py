"""Scores of whole scans that outlive an interruption, so that no scan is scored twice."""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hounsfield.classify.scans import Scan
from hounsfield.files import write_whole


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

    def kept(scan: Scan) -> NDArray[np.float64]:
        content = hashlib.sha256(f"{scorer} {scan.units} {scan.images.shape}".encode())
        content.update(scan.images.tobytes())
        file = folder / f"{content.hexdigest()}.npy"
        with suppress(OSError, EOFError, ValueError):  # not there, or damaged
            logits: NDArray[np.float64] = np.load(file, allow_pickle=False)
            return logits
        logits = score(scan)
        whole = io.BytesIO()
        np.save(whole, logits, allow_pickle=False)
        write_whole(file, whole.getvalue())
        return logits

    return kept
