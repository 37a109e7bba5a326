"""How fast are views made on one CPU core, against the published study's way?

    python benchmarks/views.py [--slices 64] [--rounds 5] [--seed 0]

The published way (github.com/Wolfda95/SSL-MedicalImagining-CL-MAE/tree/87a1627, its MoCo and BYOL):
decode an 8-bit PNG, convert to RGB, then PIL and torchvision transforms, an image at a time. Ours:
int16 slices from a store, a batch at a time. Same slices, 512 px as scanners give them; views of
224 px; processor time of one thread, the two ways in turn, the median of the rounds.

Prints `name value` lines: views per second of a core for each way, and the ratios.

- views_speedup: our `two_views` (crop, turn, flips, HU window, noise, blur, gamma)
- views_speedup_same_recipe: `paper_two_views`, the published transforms done our way
- views_speedup_256: as the first, from a store that was ingested at 256 px
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import transforms

from hounsfield.augment.recipe import Recipe
from hounsfield.augment.views import recipe
from hounsfield.data.batches import Batches
from hounsfield.data.phantom.patient import draw_patient
from hounsfield.data.phantom.scan import render
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.seeding import stream

NATIVE, VIEW, BATCH = 512, 224, 32


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    slices = phantom_slices(options.slices, seed=options.seed)
    halves = slices.reshape(len(slices), 256, 2, 256, 2).mean(axis=(2, 4)).round().astype(np.int16)
    pngs = [png(slice_hu) for slice_hu in slices]
    with tempfile.TemporaryDirectory() as folder:
        native = store(Path(folder) / "native", slices)
        half = store(Path(folder) / "half", halves)
        two_views = recipe("two_views", size=VIEW)
        ways: dict[str, Callable[[int], int]] = {
            "published": lambda _: published_views(pngs),
            "ours": lambda r: our_views(native, two_views, seed=r),
            "same_recipe": lambda r: our_views(
                native, recipe("paper_two_views", size=VIEW), seed=r
            ),
            "256": lambda r: our_views(half, two_views, seed=r),
        }
        for way in ways.values():
            way(0)  # warm
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds):
            for name, way in ways.items():
                start = time.process_time()
                made = way(number)
                rates[name].append(made / (time.process_time() - start))
    median = {name: statistics.median(found) for name, found in rates.items()}
    for name, rate in median.items():
        print(f"views_per_core_second_{name} {rate:.0f}")
    print(f"views_speedup {median['ours'] / median['published']:.2f}")
    print(f"views_speedup_same_recipe {median['same_recipe'] / median['published']:.2f}")
    print(f"views_speedup_256 {median['256'] / median['published']:.2f}")


def phantom_slices(count: int, *, seed: int) -> NDArray[np.int16]:
    """Slices of phantoms in HU, `(count, 512, 512)`, with a scanner's noise."""
    slices = []
    for number in range(count):
        scan = draw_patient(number, seed).scans[number % 2]
        rng = stream(seed, "benchmark", number)
        slices.append(render(scan, number % len(scan.z_mm), rng, matrix=NATIVE))
    return np.stack(slices)


def png(slice_hu: NDArray[np.int16]) -> bytes:
    """The slice as the study stored it: its own range over 8 bits."""
    low, high = int(slice_hu.min()), int(slice_hu.max())
    file = io.BytesIO()
    grey = np.rint((slice_hu.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)
    Image.fromarray(grey).save(file, format="PNG")
    return file.getvalue()


def store(path: Path, slices: NDArray[np.int16]) -> Store:
    """A store of the slices, each of a patient of its own."""
    names = [f"{number:016x}" for number in range(len(slices))]
    return write_store(path, slices, pl.DataFrame({"patient": names, "series": names}))


PUBLISHED = transforms.Compose(
    [
        transforms.Grayscale(3),
        transforms.RandomApply([transforms.RandomRotation(180)], p=0.5),
        transforms.RandomResizedCrop(VIEW, scale=(0.2, 1.0)),
        transforms.ColorJitter(0.4, 0.4, 0.4, 0.1),
        transforms.RandomApply([transforms.GaussianBlur(23, (0.1, 2.0))], p=0.5),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.ToTensor(),
        transforms.RandomApply([lambda view: view + torch.randn_like(view) * 0.007], p=0.5),
        transforms.Normalize([0.1806] * 3, [0.1907] * 3),
    ]
)


def published_views(pngs: list[bytes]) -> int:
    """Two views of every image, batched; how many."""
    views: list[Tensor] = []
    for content in pngs:
        image = Image.open(io.BytesIO(content)).convert("RGB")
        views += [PUBLISHED(image), PUBLISHED(image)]
    for first in range(0, len(views), BATCH):
        torch.stack(views[first : first + BATCH])
    return len(views)


def our_views(slices: Store, views: Recipe, *, seed: int) -> int:
    """Two views of every image, batched; how many."""
    rows = np.arange(len(slices), dtype=np.int64)
    batches = Batches([slices], [rows], batch=BATCH, seed=seed)
    made = 0
    for step in range(batches.steps_per_epoch):
        batch = batches.load(step)
        chance = torch.Generator().manual_seed(seed * 1000 + step)
        made += sum(len(view) for view in views(batch.images, batch.is_hu, chance))
    return made


if __name__ == "__main__":
    main()
