"""Memory and open files over ten thousand steps of pre-training: a program for `make soak`.

Trains a tiny network on a small store with checkpoints, metrics and looks at the features, and
fails where memory or open files keep growing after the first fifth.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import psutil

from hounsfield.config import parse
from hounsfield.data.store_writer import write_store
from hounsfield.seeding import stream
from hounsfield.train import health
from hounsfield.train.pretrain import PretrainConfig, pretrain

STEPS = int(os.environ.get("STEPS", "10000"))
LOOK_EVERY = STEPS // 20
ALLOWED_MIB = 16.0


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = stream(0, "soak").normal(0, 300, size=(64, 32, 32)).astype(np.int16)
        owners = [f"p{row // 4}" for row in range(64)]
        index = pl.DataFrame({"patient": owners, "series": owners})
        write_store(folder / "store", images, index)
        config = parse(
            PretrainConfig,
            {
                "method": "moco_v2",
                "stores": [str(folder / "store")],
                "backbone": "resnet10_tiny",
                "image_size": 32,
                "batch_size": 4,
                "budget": {"steps": STEPS},
                "loop": {"watch_every": LOOK_EVERY, "checkpoint_every": 500, "alarms": False},
                "device": "cpu",
            },
            where="soak",
        )
        seen = watched(lambda: pretrain(config, folder / "run"))
    settled = seen[len(seen) // 5 :]
    memory = [mib for mib, _ in settled]
    files = [count for _, count in settled]
    for number, (mib, count) in enumerate(seen, start=1):
        print(f"step {number * LOOK_EVERY:6d}: {mib:7.1f} MiB, {count} open files")
    grown = memory[-1] - memory[0]
    print(f"after the first fifth: {grown:+.1f} MiB, open files {min(files)} to {max(files)}")
    return int(grown > ALLOWED_MIB or max(files) > min(files) + 2)


def watched(work):
    """What the process held at every look: MiB of memory and open files."""
    held, process, look = [], psutil.Process(), health.Watcher.__call__

    def looking(self, model, line):
        held.append((process.memory_info().rss / 2**20, process.num_fds()))
        return look(self, model, line)

    health.Watcher.__call__ = looking
    try:
        work()
    finally:
        health.Watcher.__call__ = look
    return held


if __name__ == "__main__":
    sys.exit(main())
