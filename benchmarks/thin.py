"""How long `hounsfield thin` takes on a large store.

    python benchmarks/thin.py [--slices N] [--size PX]

The store is made here, at the size that slices are stored at by default: series of 250 slices that
change little from one to the next, as a scan's do. It takes 8 GB for a quarter of a million. What
is timed is the command line in a process of its own: every slice read and hashed, every volume
thinned at all distances of the curve, what is kept written and checksummed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import ndimage

from hounsfield.data.store_writer import StoreWriter
from hounsfield.files import check_space, folder_whole

SERIES = 250  # slices
SCANS = 8  # different ones; a series is one of them, shifted
RUN = """
import resource, sys
from hounsfield.cli import app
app(sys.argv[1:], standalone_mode=False)
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime)
"""


def main() -> None:
    """Make a store, thin it, print what that took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=250_000)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        check_space(Path(scratch), 2 * 2 * options.slices * options.size**2)  # nothing may go
        store = make(Path(scratch) / "store", options.slices, options.size)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", RUN, "thin", str(store), "--out", f"{scratch}/thin"],
            check=True,
            capture_output=True,
            text=True,
        )
        wall_s = time.perf_counter() - start
    cpu_s = float(done.stdout.splitlines()[-1])
    print(f"{done.stdout.splitlines()[0]}, load {os.getloadavg()[0]:.1f}")
    print(f"thin_{options.slices // 1000}k_slices: {wall_s:.0f} s wall, {cpu_s:.0f} s CPU")


def make(path: Path, slices: int, size: int) -> Path:
    """A store of `slices` slices, four series a patient."""
    rng = np.random.default_rng(0)
    scans = [scan(rng, size) for _ in range(SCANS)]
    counts = [min(SERIES, slices - first) for first in range(0, slices, SERIES)]
    with folder_whole(path) as folder:
        writer = StoreWriter(folder, size=size)
        for number, count in enumerate(counts):
            shift = rng.integers(0, size, 2)
            writer.add(np.roll(scans[number % SCANS][:count], shift, (1, 2)))
        series = np.repeat(np.arange(len(counts)), counts)
        index = pl.DataFrame(
            {
                "patient": [f"p{one // 4}" for one in series],
                "series": [f"s{one}" for one in series],
                "z": np.concatenate([np.arange(count) for count in counts]),
            }
        )
        writer.close(index)
    return path


def scan(rng: np.random.Generator, size: int) -> NDArray[np.int16]:
    """Smooth HU `(SERIES, size, size)` under noise."""
    coarse = rng.normal(0, 400, (SERIES // 25, 9, 9))
    zoom = (SERIES / len(coarse), size / 9, size / 9)
    smooth = ndimage.zoom(coarse, zoom, order=1)
    return np.rint(smooth + rng.normal(0, 10, smooth.shape)).astype(np.int16)


if __name__ == "__main__":
    main()
