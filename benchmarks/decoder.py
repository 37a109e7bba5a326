"""Which decoder serves the encoder best at equal time: widths and shapes, trained and probed.

    python benchmarks/decoder.py [STORE LABEL] [--seconds 60] [--size 96] [--seed 0]
        [--decoder WIDTH STRIDE]

Each trains the same small network on a store's training patients for the same CPU time of one
thread; without a store, on those of a phantom archive of 120 patients. Then all other patients
judge it: the paper's reconstruction loss under fixed masks, and a linear and a nearest-neighbour
probe of the encoder for the label (AUC), fitted on the training patients.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hounsfield.augment.views import Recipe, recipe
from hounsfield.data.batches import Batches, Pool
from hounsfield.data.ingest import ingest
from hounsfield.data.phantom import phantom
from hounsfield.data.store import Store
from hounsfield.methods.spark import SparK, SparKConfig
from hounsfield.models.backbone import create
from hounsfield.models.probe import knn, linear
from hounsfield.seeding import seed_of
from hounsfield.train.memory import keep_freed_memory

DECODERS = ((768, 1), (256, 1), (256, 4), (128, 4), (64, 4))  # width, last stride
BATCH = 32
RATE = 1e-3


def main() -> None:
    """Print a line for each decoder."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("store", type=Path, nargs="?")
    arguments.add_argument("label", nargs="?", default="region")
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--size", type=int, default=96)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--decoder", type=int, nargs=2, help="this one alone")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as every training on the CPU does
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(given.store or phantom_store(Path(folder), given.size))
        print("width stride seed steps loss linear_auc knn_auc", flush=True)
        for width, stride in [given.decoder] if given.decoder else DECODERS:
            model, steps = trained(store, width, stride, given)
            loss, probes = judged(model, store, given)
            found = " ".join(f"{each:.3f}" for each in (loss, *probes))
            print(f"{width} {stride} {given.seed} {steps} {found}", flush=True)


def phantom_store(folder: Path, size: int) -> Path:
    """A store of 120 phantom patients."""
    labels = phantom(folder / "scans", patients=120, seed=0)
    ingest([folder / "scans"], folder / "store", labels=labels, size=size, workers=1)
    return folder / "store"


def trained(store: Store, width: int, stride: int, given: argparse.Namespace) -> tuple[SparK, int]:
    """SparK with this decoder after the given time, and its steps."""
    seed = given.seed
    torch.manual_seed(seed_of(seed, "decoder"))
    model = SparK(
        create("resnet10_half", seed=seed),
        SparKConfig(decoder_width=width, decoder_stride=stride),
        image_size=given.size,
        corpus_size=len(store),
    ).to(memory_format=torch.channels_last)
    batches = Batches([store], [rows_of(store, "train")], batch=BATCH, seed=seed)
    views = recipe("single", size=given.size)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    start, step = time.process_time(), 0
    while (progress := (time.process_time() - start) / given.seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(progress / 0.05, 0.5 * (1 + math.cos(math.pi * progress)))
        batch = batches.load(step)
        chance = torch.Generator().manual_seed(seed_of(seed, "views", step))
        loss = model(views(batch.images, batch.is_hu, chance)).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        step += 1
    return model.eval(), step


@torch.no_grad()
def judged(
    model: SparK, store: Store, given: argparse.Namespace
) -> tuple[float, tuple[float, float]]:
    """The paper's loss on the other patients; a linear and a neighbour probe's AUC."""
    plain = recipe("plain", size=given.size)
    aside = images_of(store, rows_of(store, "val", "test"), plain)
    model.config = SparKConfig(empty_std=0.0)
    torch.manual_seed(0)
    losses = [float(model.step(part, model.draw_layout(part)).loss) for part in aside.split(64)]
    labelled = store.index[given.label].is_not_null().to_numpy()
    rows = np.flatnonzero(labelled & store.index["split"].is_not_null().to_numpy())
    features = torch.cat([model.backbone(x) for x in images_of(store, rows, plain).split(64)])
    labels = np.unique(store.index[given.label].gather(rows).to_numpy(), return_inverse=True)[1]
    fitted = np.isin(rows, rows_of(store, "train"))
    return sum(losses) / len(losses), (
        linear(features, labels, fitted=fitted),
        knn(features, labels, fitted=fitted),
    )


def rows_of(store: Store, *splits: str) -> np.ndarray:
    """The rows of these splits."""
    return np.flatnonzero(store.index["split"].is_in(splits).fill_null(value=False).to_numpy())


def images_of(store: Store, rows: np.ndarray, plain: Recipe) -> Tensor:
    """The rows' images, normalised, without augmentation."""
    batch = Pool([store], [rows]).load(np.arange(len(rows)), torch.device("cpu"))
    return plain(batch.images, batch.is_hu, torch.Generator())[0]


if __name__ == "__main__":
    main()
