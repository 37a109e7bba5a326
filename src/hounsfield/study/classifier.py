"""A backbone with a linear head: its logits, its features, and its best weights kept."""

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from hounsfield.augment.views import plain_view
from hounsfield.methods.base import Step
from hounsfield.models.backbone import Backbone
from hounsfield.study.images import Images
from hounsfield.study.scores import Score

EVALUATION_BATCH = 256


class Classifier(nn.Module):
    """A backbone and a linear head that starts at zero."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.embed_dim, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def logits(self, images: Tensor) -> Tensor:
        """`(batch, classes)` of images `(batch, channels, height, width)`."""
        return self.head(self.backbone(images))

    def forward(self, views: tuple[Tensor, Tensor]) -> Step:
        """Cross-entropy of a batch of images and their labels."""
        images, labels = views
        return Step(F.cross_entropy(self.logits(images), labels))

    def before_step(self, progress: float) -> None:
        """Nothing follows a schedule here."""
        del progress

    def after_step(self, progress: float) -> None:
        """Nothing is updated here but by the optimiser."""
        del progress


@torch.inference_mode()
def predict(
    model: Classifier, images: Images, places: NDArray[np.int64], *, size: int
) -> NDArray[np.float32]:
    """Logits `(places, classes)` of images as they are, without augmentation."""
    logits = _see(model, model.logits, model.backbone.channels, images, places, size=size)
    return np.concatenate([np.zeros((0, model.head.out_features), np.float32), *logits])


@torch.inference_mode()
def embed(
    backbone: Backbone, images: Images, places: NDArray[np.int64], *, size: int
) -> NDArray[np.float32]:
    """Features `(places, embed_dim)` of images as they are."""
    features = _see(backbone, backbone, backbone.channels, images, places, size=size)
    return np.concatenate([np.zeros((0, backbone.embed_dim), np.float32), *features])


def _see(
    model: nn.Module,
    answer: Callable[[Tensor], Tensor],
    channels: int,
    images: Images,
    places: NDArray[np.int64],
    *,
    size: int,
) -> Iterator[NDArray[np.float32]]:
    """What a model in eval mode answers to batch after batch."""
    plain = partial(plain_view, size=size, channels=channels, window=images.window_hu)
    training = model.training
    model.eval()
    for first in range(0, len(places), EVALUATION_BATCH):
        part = torch.from_numpy(places[first : first + EVALUATION_BATCH]).to(images.pixels.device)
        view = plain(images.pixels[part], images.is_hu[part])
        yield answer(view).float().cpu().numpy()
    model.train(training)


class Keeper:
    """Looks at validation now and then, and keeps the weights that did best.

    Args:
        score_now: Scores the model as it is. Where validation is too small to say, it gives
            nothing, and every look replaces the last.
        first_of_equals: Keep the first of equal looks, not the last.
    """

    def __init__(
        self, score_now: Callable[[], Score | None], *, first_of_equals: bool = False
    ) -> None:
        self.score_now, self.first_of_equals = score_now, first_of_equals
        self.seen, self.step = 0, 0
        self.score: Score | None = None
        self.state: dict[str, Tensor] = {}

    def __call__(self, model: nn.Module, line: Mapping[str, float]) -> dict[str, float]:
        """Look, and say what was seen."""
        score = self.look(model, int(line["step"]))
        return {} if score is None else {"val": score[0]}

    def look(self, model: nn.Module, step: int) -> Score | None:
        """Score the model as it is after `step` steps, and keep it if it is the best so far."""
        score, self.seen = self.score_now(), step
        if self._better(score):
            self.score, self.step = score, step
            self.state = copy.deepcopy(model.state_dict())
        return score

    def _better(self, score: Score | None) -> bool:
        if self.score is None or score is None:
            return True
        return score > self.score or (score == self.score and not self.first_of_equals)

    def restore(self, model: nn.Module) -> None:
        """Put the kept weights back."""
        model.load_state_dict(self.state)

    def state_dict(self) -> dict[str, Any]:
        """What the next look is held against."""
        return {"seen": self.seen, "step": self.step, "score": self.score, "kept": self.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what an earlier process had seen."""
        self.seen, self.step, self.score = state["seen"], state["step"], state["score"]
        self.state = state["kept"]
