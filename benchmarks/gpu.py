"""How fast does each method train on a GPU: ResNet-50 at 224 px, in bfloat16 where there is it.

    python benchmarks/gpu.py [--batch 256] [--steps 60] [--warm 20]

Each method goes through the loop that `pretrain` uses, from int16 slices in a store of random ones,
by its own recipe. Without a CUDA device it says so and ends. To see it run on a CPU:
`--device cpu --backbone resnet10_tiny --size 64 --batch 4 --steps 2 --warm 1`.

Prints `name value` lines:

- images_per_s_METHOD, waited_METHOD (share of the time spent waiting for data), peak_gb_METHOD
- images_per_s_masked: SparK with the paper's decoder, masked-dense, 32 bits
- spark_gpu_speedup: SparK over that
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from hounsfield.augment.views import recipe
from hounsfield.config import parse
from hounsfield.data.batches import Batches
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.methods import METHODS, find
from hounsfield.methods.base import Method, Step
from hounsfield.methods.spark import SparK, SparKConfig
from hounsfield.models.backbone import create
from hounsfield.seeding import stream
from hounsfield.train.device import fabric
from hounsfield.train.loop import Fitted, fit
from hounsfield.train.optim import OptimConfig
from hounsfield.train.schedule import Schedule
from hounsfield.train.training import LoopConfig
from reference.masked_dense import masked_spark_loss

SLICES, STORED = 2048, 256  # px, of the store


class MaskedSparK(SparK):
    """SparK the way of its authors: dense layers over a masked image."""

    def forward(self, views: list[torch.Tensor]) -> Step:
        """The loss of one batch."""
        layout = self.draw_layout(views[0])
        mask = ~layout.hidden.view(-1, 1, *layout.grid)
        return Step(masked_spark_loss(self, views[0], mask))


def main() -> None:
    """Print a line a number."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    arguments.add_argument("--backbone", default="resnet50")
    arguments.add_argument("--size", type=int, default=224)
    arguments.add_argument("--batch", type=int, default=256)
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--warm", type=int, default=20, help="steps before, not counted")
    given = arguments.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("skipped: this machine has no CUDA device")
        return
    print(torch.cuda.get_device_name() if given.device == "cuda" else "CPU", torch.__version__)
    with tempfile.TemporaryDirectory() as folder:
        store = noise_store(Path(folder) / "store")
        rates = {}
        for name in METHODS:
            kind = find(name)
            method = kind(
                create(given.backbone),
                parse(kind.config_class, {}, where=name),
                image_size=given.size,
                corpus_size=SLICES,
            )
            rates[name] = report(name, method, store, given, precision="auto")
        paper = SparKConfig(decoder_width=768, decoder_stride=1, empty_std=0.0)
        masked = MaskedSparK(
            create(given.backbone), paper, image_size=given.size, corpus_size=SLICES
        )
        rates["masked"] = report("masked", masked, store, given, precision="32-true")
    print(f"spark_gpu_speedup {rates['spark'] / rates['masked']:.2f}")


def report(
    name: str, method: Method, store: Store, given: argparse.Namespace, *, precision: str
) -> float:
    """Train for a while, print what it took, and give the images per second."""
    if given.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    train(method, store, given, precision=precision, steps=given.warm)
    fitted = train(method, store, given, precision=precision, steps=given.steps)
    print(f"images_per_s_{name} {fitted.images_per_s:.1f}", flush=True)
    print(f"waited_{name} {fitted.waited:.3f}", flush=True)
    if given.device == "cuda":
        print(f"peak_gb_{name} {torch.cuda.max_memory_allocated() / 1e9:.2f}", flush=True)
    return fitted.images_per_s


def train(
    method: Method, store: Store, given: argparse.Namespace, *, precision: str, steps: int
) -> Fitted:
    """The loop of `pretrain`, with nothing on disk."""
    machines = fabric(given.device, precision=precision)
    every = np.arange(len(store), dtype=np.int64)
    views = recipe(method.recipe, size=given.size)
    return fit(
        method,
        batches=Batches([store], [every], batch=given.batch, seed=0, device=machines.device),
        make_views=lambda batch, chance: views(batch.images, batch.is_hu, chance),
        optimiser=OptimConfig(lr=1e-4),
        schedule=Schedule(steps=steps),
        seed=0,
        config=LoopConfig(tensorboard=False),
        fabric=machines,
    )


def noise_store(path: Path) -> Store:
    """Slices of noise: what they show costs nothing."""
    images = stream(0, "noise").normal(0, 300, size=(SLICES, STORED, STORED)).astype(np.int16)
    patients = [f"p{row // 32}" for row in range(SLICES)]
    return write_store(path, images, pl.DataFrame({"patient": patients, "series": patients}))


if __name__ == "__main__":
    main()
