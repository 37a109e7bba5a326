"""Where in a slice the evidence lies: gradient times activation on the last feature map.

For a network that averages its last feature map and puts a linear head on it, the map adds up to
the evidence without the head's bias: it is Class Activation Mapping (Zhou et al., Learning Deep
Features for Discriminative Localization, arXiv 1512.04150). For others it is a first-order
estimate (Selvaraju et al., Grad-CAM, arXiv 1610.02391, without its ReLU and pooled gradients).
"""

import hashlib
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hounsfield.classify.kept import Kept
from hounsfield.classify.scans import Scan
from hounsfield.files import write_png

BATCH = 16
RED, BLUE = (1.0, 0.15, 0.1), (0.1, 0.35, 1.0)  # for, against
OPACITY = 0.6


def write_heatmaps(kept: Kept, scan: Scan, folder: Path) -> None:
    """Write a picture of every slice: red is evidence for a class, blue against it.

    The class is the second of two, the most probable one of more; it stands in the file's name.

    Raises:
        DiskError: The folder cannot be written.
    """
    for first in range(0, len(scan.images), BATCH):
        part = slice(first, first + BATCH)
        images = torch.from_numpy(scan.images[part])[:, None]
        is_hu = torch.full((len(images),), scan.units == "hu")
        views = kept.encoder.views(images, is_hu).to(kept.head.weight.device)
        maps, classes = evidence(kept, views)
        for place, (view, heat, own) in enumerate(zip(views, maps, classes.tolist(), strict=True)):
            name = f"{first + place:04d}_{_plain(kept.facts.classes[own])}.png"
            write_png(folder / _plain(scan.series) / name, _picture(view[0], heat))


def evidence(kept: Kept, views: Tensor) -> tuple[Tensor, Tensor]:
    """Maps `(batch, height, width)` of the last feature map, and the class of each, `(batch,)`.

    Evidence is the class's logit above the mean of the others'.

    Args:
        kept: The classifier.
        views: Normalised `(batch, channels, size, size)`.
    """
    net = kept.encoder.backbone.net
    with torch.enable_grad():
        features = net.forward_features(views).detach().requires_grad_()  # type: ignore[operator]
        logits = kept.head(net.forward_head(features, pre_logits=True))  # type: ignore[operator]
        classes = logits.argmax(1) if logits.shape[1] > 2 else torch.ones(len(logits)).long()
        classes = classes.to(logits.device)
        chosen = logits.gather(1, classes[:, None])[:, 0]
        others = (logits.sum(1) - chosen) / (logits.shape[1] - 1)
        (gradient,) = torch.autograd.grad((chosen - others).sum(), features)
    return (gradient * features.detach()).sum(1), classes


def _picture(view: Tensor, heat: Tensor) -> NDArray[np.uint8]:
    """`(height, width, 3)`: the slice in grey under its evidence, as a share of the greatest."""
    low, high = view.min(), view.max()
    grey = ((view - low) / (high - low).clamp(min=1e-6)).cpu().numpy()
    spread = F.interpolate(heat[None, None], size=view.shape, mode="bilinear", align_corners=False)[
        0, 0
    ]
    strength = (spread / spread.abs().max().clamp(min=1e-12)).cpu().numpy()
    return (255 * _paint(grey, strength)).astype(np.uint8)


def _paint(grey: NDArray[np.float32], strength: NDArray[np.float32]) -> NDArray[np.float32]:
    """`(height, width, 3)` in [0, 1]."""
    colour = np.where(strength[..., None] > 0, np.array(RED), np.array(BLUE))
    cover = OPACITY * np.abs(strength)[..., None]
    return (grey[..., None] * (1 - cover) + colour * cover).astype(np.float32)


def _plain(name: str) -> str:
    """A name that is safe in a path; a changed one is told apart by a hash."""
    safe = re.sub(r"[^\w.-]", "_", name).strip(".")[:80]
    if safe == name:
        return name
    return f"{safe or 'name'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
