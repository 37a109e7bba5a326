"""How fast does each method train on a GPU: ResNet-50 at 224 px, in bfloat16 where there is it.

    python benchmarks/gpu.py [--batch 256] [--steps 60] [--warm 20]

Each method goes through the loop that `pretrain` uses, from int16 slices in a store of random ones,
by its own recipe. Without a CUDA device it says so and ends. To see it run on a CPU:
`--device cpu --backbone resnet10_tiny --size 64 --batch 4 --steps 2 --warm 1`.

Prints `name: value unit` lines:

- images_per_s_METHOD, waited_METHOD (share of the time spent waiting for data, the first batch
  included, which nobody reads ahead), peak_memory_METHOD
- the same of two references, SparK with the paper's decoder done the masked-dense way: `masked` in
  32 bits, as its authors do it, and `masked_same_precision`
- spark_gpu_speedup, spark_gpu_speedup_same_precision: SparK's images/s over theirs

All have their channels last, and cuDNN and TF32 as PyTorch has them by default.
"""

import argparse
import gc
import sys
import tempfile
from collections.abc import Iterator
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
from hounsfield.train.device import Precision, fabric
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
        rates = {
            name: report(name, method, store, given, precision=precision)
            for name, method, precision in ways(given)
        }
    for kind in ("", "_same_precision"):
        print(f"spark_gpu_speedup{kind}: {rates['spark'] / rates[f'masked{kind}']:.2f}")


def ways(given: argparse.Namespace) -> Iterator[tuple[str, Method, Precision]]:
    """What is compared: name, method and precision; each is made when it is asked for."""
    facts = {"image_size": given.size, "corpus_size": SLICES}
    for name in METHODS:
        kind = find(name)
        config = parse(kind.config_class, {}, where=name)
        yield name, kind(create(given.backbone), config, **facts), "auto"
    paper = SparKConfig(decoder_width=768, decoder_stride=1, empty_std=0.0)
    yield "masked", MaskedSparK(create(given.backbone), paper, **facts), "32-true"
    yield "masked_same_precision", MaskedSparK(create(given.backbone), paper, **facts), "auto"


def report(
    name: str, method: Method, store: Store, given: argparse.Namespace, *, precision: Precision
) -> float:
    """Train for a while, print what it took, and give the images per second."""
    gc.collect()  # the one before is no part of this one's peak
    if given.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    train(method, store, given, precision=precision, steps=given.warm)
    fitted = train(method, store, given, precision=precision, steps=given.steps)
    print(f"images_per_s_{name}: {fitted.images_per_s:.1f} images/s", flush=True)
    print(f"waited_{name}: {100 * fitted.waited:.1f} %", flush=True)
    if given.device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
        print(f"peak_memory_{name}: {peak:.2f} GB", flush=True)
    return fitted.images_per_s


def train(
    method: Method, store: Store, given: argparse.Namespace, *, precision: Precision, steps: int
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
