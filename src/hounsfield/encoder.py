"""A backbone with the images that it was made for: slices in, features out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hounsfield.augment.views import plain_view
from hounsfield.data.store import Store
from hounsfield.data.window import ends_of
from hounsfield.errors import WeightsError
from hounsfield.models.backbone import Backbone, create
from hounsfield.models.pretrained import Card, fill
from hounsfield.models.recognise import guess
from hounsfield.models.weights_file import WeightsFile
from hounsfield.models.weights_source import IMAGENET, find

DEFAULT_SIZE = 224  # px, where a file does not say what it was trained with
DEFAULT_WINDOW = "wide"
SMALLEST_PX, LARGEST_PX = 8, 4096  # of an image size that a file may ask for


@dataclass(frozen=True)
class Encoder:
    """A trained backbone and what its images must be.

    Attributes:
        backbone: In evaluation mode.
        card: Where its weights come from.
        image_size: Height and width of its input in pixels.
        window_hu: The range of HU that is shown, low and high.
    """

    backbone: Backbone
    card: Card
    image_size: int
    window_hu: tuple[float, float]

    @torch.inference_mode()
    def features(self, images: NDArray[np.int16], is_hu: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Features `(batch, embed_dim)` of slices as a store has them.

        Args:
            images: `(batch, height, width)`: HU, or display values.
            is_hu: `(batch,)`: which of the two.
        """
        views = self.views(torch.from_numpy(images)[:, None], torch.from_numpy(is_hu))
        device = next(self.backbone.parameters()).device
        return self.backbone(views.to(device)).float().cpu().numpy()

    def views(self, images: Tensor, is_hu: Tensor) -> Tensor:
        """Normalised input `(batch, channels, image_size, image_size)` of the backbone.

        Args:
            images: int16 `(batch, 1, height, width)`.
            is_hu: bool `(batch,)`.
        """
        channels = self.backbone.channels
        return plain_view(
            images, is_hu, size=self.image_size, channels=channels, window=self.window_hu
        )


def load_encoder(
    source: str | Path,
    *,
    backbone: str | None = None,
    channels: int | None = None,
    image_size: int | None = None,
    window: str | tuple[float, float] | None = None,
    default_size: int = DEFAULT_SIZE,
    device: str = "cpu",
) -> Encoder:
    """The encoder of a run, a file, a Hugging Face hub id or `"imagenet"`.

    A run says itself what it is and what it was trained with; for another file, what is not given
    is found out (the backbone) or ours (1 channel, 224 px, the wide window).

    Args:
        source: As `models.pretrained.load_into` takes it.
        backbone: timm's name, or one of our small ones.
        channels: Of the input.
        image_size: Height and width of the input in pixels.
        window: In HU: a name (`data.window.WINDOWS`), or low and high.
        default_size: The image size where neither you nor the file say one.
        device: As torch names it.

    Raises:
        WeightsError: The weights cannot be read, or do not fill the backbone.
        ConfigError: A backbone or a window has no such name.
    """
    if source == IMAGENET and backbone is None:
        raise WeightsError('"imagenet" needs a backbone. Give its name, such as "resnet50".')
    card, file = find(source, backbone=backbone or "")
    said = file.metadata
    name = backbone or said.get("backbone") or _recognise(file)
    network = create(name, channels=channels or _number(file, "channels", 1, 64) or 1)
    card = fill(network, card, file)
    size = image_size or _number(file, "image_size", SMALLEST_PX, LARGEST_PX) or default_size
    window_hu = ends_of(window or _window(file) or DEFAULT_WINDOW)
    return Encoder(network.eval().to(device), card, size, window_hu)


def embed(
    store: Store, encoder: Encoder, rows: NDArray[np.int64] | None = None, *, batch: int = 64
) -> NDArray[np.float32]:
    """Features `(rows, embed_dim)` of a store's slices, in the order of `rows`.

    Args:
        store: Where the slices are.
        encoder: What sees them.
        rows: Which slices; all of them without it.
        batch: Slices at a time.

    Raises:
        StoreError: A row is not in the store.
    """
    rows = np.arange(len(store)) if rows is None else rows
    features = np.empty((len(rows), encoder.backbone.embed_dim), dtype=np.float32)
    for part in _parts(len(rows), batch):
        features[part] = encoder.features(store.read(rows[part]), store.is_hu[rows[part]])
    return features


def _parts(total: int, size: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, total, size))


def _recognise(file: WeightsFile) -> str:
    fitting = [name for name, fit in guess(file.tensors).items() if not fit.problems]
    if not fitting:
        raise WeightsError(
            f"{file.path} fills none of the backbones that are tried. Say which backbone it is "
            "for; `hounsfield weights FILE --backbone NAME` lists what does not fit."
        )
    return fitting[0]


def _number(file: WeightsFile, key: str, low: int, high: int) -> int | None:
    text = file.metadata.get(key, "")
    if not text:
        return None
    digits = text.isascii() and text.isdigit() and len(text) < 10  # int() takes its time for more
    if not digits or not low <= int(text) <= high:
        raise _odd(file, key, text)
    return int(text)


def _window(file: WeightsFile) -> tuple[float, float] | None:
    text = file.metadata.get("window_hu", "")
    if not text:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise _odd(file, "window_hu", text) from None
    if not -(2.0**15) <= low < high <= 2.0**15:
        raise _odd(file, "window_hu", text)
    return low, high


def _odd(file: WeightsFile, key: str, text: str) -> WeightsError:
    return WeightsError(
        f"{file.path} says {key} = {text[:50]!r} in its header, which cannot be. It is damaged or "
        "another program's: give the value yourself."
    )
