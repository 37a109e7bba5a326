"""MoCo v2: recognise an image's other view among the keys of many other images.

Paper: "Improved Baselines with Momentum Contrastive Learning" (arXiv 2003.04297), on top of
"Momentum Contrast for Unsupervised Visual Representation Learning" (arXiv 1911.05722).
Original code:
https://github.com/facebookresearch/moco/blob/7397dfe146c7ca6bbb58e9c382498069178ba764/moco/builder.py

Unlike the paper:

- Batch norm is not shuffled. The paper shuffles because the few images of one GPU share their
  statistics, and a query can know its key by them. Here the statistics, of queries and of keys,
  are those of the joint batch of all processes; so the group that shares them is the whole batch,
  and the result does not depend on the number of processes.
- The queue is no longer than the corpus: a longer one would hold older keys of the query's image.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from hounsfield.config import Config
from hounsfield.losses.info_nce import info_nce
from hounsfield.methods.base import Method, Plateau, Step, expect
from hounsfield.models.backbone import Backbone
from hounsfield.models.ema import ema_update, slow_copy
from hounsfield.models.gather import gather
from hounsfield.models.heads import mlp
from hounsfield.models.queue import Queue


class MoCoV2Config(Config):
    """The paper's settings (arXiv 2003.04297, table 1 and section 3).

    Attributes:
        queue_size: Keys of other slices that wait; never more than the corpus has slices.
        momentum: Of the slow copy.
        temperature: Of the softmax over the keys.
        projection_dim: Length of a query and of a key.
    """

    queue_size: int = Field(65_536, ge=1)
    momentum: float = Field(0.999, ge=0, lt=1)
    temperature: float = Field(0.2, gt=0)
    projection_dim: int = Field(128, ge=1)


class MoCoV2(Method):
    """Queries meet their keys, made by a slow copy, and a queue of other images' keys."""

    name: ClassVar[str] = "moco_v2"
    config_class: ClassVar[type[Config]] = MoCoV2Config
    recipe: ClassVar[str] = "two_views"

    def __init__(
        self, backbone: Backbone, config: MoCoV2Config, *, image_size: int, corpus_size: int
    ) -> None:
        super().__init__()
        del image_size
        self.config = config
        self.backbone = backbone
        self.projector = mlp(backbone.embed_dim, backbone.embed_dim, config.projection_dim)
        self.slow_backbone = slow_copy(self.backbone)
        self.slow_projector = slow_copy(self.projector)
        self.queue = Queue(min(config.queue_size, corpus_size), config.projection_dim)
        self._fresh: list[Tensor] = []  # keys of this step; empty between steps

    def forward(self, views: Sequence[Tensor]) -> Step:
        """The loss of one batch of two views, the first as queries, the second as keys."""
        first, second = expect(views, 2, method=self.name)
        query, key = self.query(first), self.key(second)
        queue = self.queue.rows  # after_step writes to it, when the gradient is done
        loss = info_nce(query, key, queue, temperature=self.config.temperature)
        if self.training:
            self._fresh.append(gather(key))
        with torch.no_grad():
            matching = (query * key).sum(dim=1)
            found = (matching[:, None] > query @ queue.T).all(dim=1).float().mean()
        return Step(loss, {"positive_similarity": matching.mean(), "positive_first": found})

    def query(self, view: Tensor) -> Tensor:
        """Unit vectors `(batch, projection_dim)`, with gradient."""
        return F.normalize(self.projector(self.backbone(view)), dim=1)

    @torch.no_grad()
    def key(self, view: Tensor) -> Tensor:
        """Unit vectors `(batch, projection_dim)` of the slow copy."""
        return F.normalize(self.slow_projector(self.slow_backbone(view)), dim=1)

    def plateau(self) -> Plateau:
        """Where a query is as near to every key as to its own."""
        level = math.log(1 + len(self.queue.rows))
        return Plateau(
            loss=level,
            within=0.001 * level,  # where a queue holds the whole corpus, healthy ones come near
            name="ln(1 + queue)",
            meaning="an image's other view is no nearer to it than any other image",
            cause="the temperature is too high to tell keys apart, or the learning rate too low",
            change="Lower moco_v2.temperature, raise optim.lr, or raise batch_size.",
        )

    def after_step(self, progress: float) -> None:
        """The slow copies follow; the step's keys, of all processes, enter the queue."""
        del progress
        ema_update(self.slow_backbone, self.backbone, self.config.momentum)
        ema_update(self.slow_projector, self.projector, self.config.momentum)
        if self._fresh:
            self.queue.put(torch.cat(self._fresh))
        self._fresh.clear()
