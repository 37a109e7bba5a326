"""SwAV: predict from each view the cluster that another view of the image is assigned to.

Paper: "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments"
(arXiv 2006.09882). Original code:
https://github.com/facebookresearch/swav/blob/5e073db0cc69dea22aa75e92bfdd75011e888f28/main_swav.py

Like the original's recipe for batches of 256 images, which is what one machine has: a queue joins
the assignment after the first part of the budget, and the prototypes rest for one epoch (its 313
iterations of 4096 images and its 5005 of 256 are both one epoch of ImageNet).

Unlike the original:

- The queue is one of all processes, not a shorter one a process; the assignment is that of the
  joint batch either way.
- The queue starts after a share of the budget, 15 of 200 epochs, whatever the budget is counted
  in; and it is no longer than the corpus.
- Resting prototypes get a gradient of zero, not none. Weight decay then changes their length,
  which is set to 1 before every step, and never their direction.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from hounsfield.config import Config
from hounsfield.errors import ConfigError
from hounsfield.losses.swapped import sinkhorn, swapped_prediction
from hounsfield.methods.base import Method, Plateau, Step
from hounsfield.models.backbone import Backbone
from hounsfield.models.gather import gather, own_rows
from hounsfield.models.heads import mlp_batch_norm
from hounsfield.models.queue import Queue

ASSIGNED = 2  # the first views, the large ones, are assigned to prototypes


class SwAVConfig(Config):
    """The paper's settings (arXiv 2006.09882, appendix A; those for small batches).

    Attributes:
        prototypes: How many there are.
        hidden_dim: Width of the head's hidden layer.
        projection_dim: Length of a projection and of a prototype.
        temperature: Of the softmax over the prototypes.
        epsilon: Of the assignment; smaller is harder.
        sinkhorn_iterations: Rounds in which the assignment is evened out.
        frozen_epochs: How long the prototypes rest.
        queue_size: Earlier slices that take part in the assignment; 0 is none, and it is never
            more than the corpus has.
        queue_from: Share of the budget before the queue begins.
    """

    prototypes: int = Field(3000, ge=2)
    hidden_dim: int = Field(2048, ge=1)
    projection_dim: int = Field(128, ge=1)
    temperature: float = Field(0.1, gt=0)
    epsilon: float = Field(0.05, gt=0)
    sinkhorn_iterations: int = Field(3, ge=1)
    frozen_epochs: float = Field(1.0, ge=0)
    queue_size: int = Field(3840, ge=0)
    queue_from: float = Field(0.075, ge=0, le=1)


class SwAV(Method):
    """Two large views are assigned to prototypes; all views predict them."""

    name: ClassVar[str] = "swav"
    config_class: ClassVar[type[Config]] = SwAVConfig
    recipe: ClassVar[str] = "multi_crop"

    def __init__(
        self, backbone: Backbone, config: SwAVConfig, *, image_size: int, corpus_size: int
    ) -> None:
        super().__init__()
        del image_size
        self.config = config
        self.backbone = backbone
        self.projector = mlp_batch_norm(
            backbone.embed_dim, config.hidden_dim, config.projection_dim
        )
        self.prototypes = nn.Linear(config.projection_dim, config.prototypes, bias=False)
        self.queue = Queue(min(config.queue_size, corpus_size), ASSIGNED * config.projection_dim)
        self._corpus_size = corpus_size
        self._seen = 0  # images, over all processes
        self._fresh: list[Tensor] = []  # embeddings of this step; empty between steps

    def plateau(self) -> Plateau:
        """Where every prediction is even."""
        return Plateau(
            loss=math.log(self.config.prototypes),
            within=0.005 * math.log(self.config.prototypes),
            name="ln(prototypes)",
            meaning="every image is predicted to be of all clusters alike",
            cause="the assignments are as even, because epsilon is too high for features so alike",
            change="Lower swav.epsilon (to 0.02, say), or raise optim.lr.",
        )

    def before_step(self, progress: float) -> None:
        """Prototypes get unit length."""
        del progress
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def forward(self, views: Sequence[Tensor]) -> Step:
        """The loss of one batch: two views to assign first, then any number of others."""
        if len(views) < ASSIGNED:
            raise ConfigError(
                f"{self.name} got {len(views)} views of an image and takes at least {ASSIGNED}. "
                "Use a recipe that makes them, or leave the recipe out."
            )
        embeddings = self.embed(views)
        scores = [self.score(embedding) for embedding in embeddings]
        fresh = gather(torch.cat([part.detach() for part in embeddings[:ASSIGNED]], dim=1))
        assignments = self.assign(fresh)
        loss = swapped_prediction(scores, assignments, temperature=self.config.temperature)
        if self.training:
            self._fresh.append(fresh)
        return Step(loss, {"prototype_entropy": _entropy(scores[0], self.config.temperature)})

    def embed(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Unit vectors `(batch, projection_dim)` of every view.

        As in the original, views of one size make one pass, and share its batch statistics.
        """
        sizes = groupby(views, key=lambda view: view.shape)
        features: list[Tensor] = [self.backbone(torch.cat(list(group))) for _, group in sizes]
        projections = F.normalize(self.projector(torch.cat(features)), dim=1)
        return list(projections.chunk(len(views)))

    def score(self, embedding: Tensor) -> Tensor:
        """Cosines `(batch, prototypes)`; resting prototypes are given no gradient but zero."""
        weight = self.prototypes.weight
        if self._seen < self.config.frozen_epochs * self._corpus_size:
            weight = weight.detach() + 0 * weight
        return F.linear(embedding, weight)

    @torch.no_grad()
    def assign(self, joint: Tensor) -> list[Tensor]:
        """Assignments `(batch, prototypes)` of this process's rows, of every assigned view.

        Args:
            joint: `(processes * batch, ASSIGNED * projection_dim)` embeddings side by side.
        """
        rows = torch.cat([joint, self.queue.rows]) if self.queue.full else joint
        return [
            own_rows(
                sinkhorn(
                    F.linear(view, self.prototypes.weight),
                    epsilon=self.config.epsilon,
                    iterations=self.config.sinkhorn_iterations,
                )[: len(joint)]
            )
            for view in rows.chunk(ASSIGNED, dim=1)
        ]

    def after_step(self, progress: float) -> None:
        """The step's embeddings, of all processes, enter the queue once it has begun."""
        for joint in self._fresh:
            self._seen += len(joint)
            if self.config.queue_size and progress >= self.config.queue_from:
                self.queue.put(joint)
        self._fresh.clear()

    def get_extra_state(self) -> Tensor:
        """How many images have been seen, for the state dict."""
        return torch.tensor(self._seen)

    def set_extra_state(self, state: Tensor) -> None:
        """How many images have been seen, from a state dict."""
        self._seen = int(state)


def _entropy(scores: Tensor, temperature: float) -> Tensor:
    """Of the mean prediction over the prototypes, as a share of the greatest; 1 is even use."""
    mean = torch.softmax(scores.detach() / temperature, dim=1).mean(dim=0)
    return -(mean * mean.clamp_min(1e-12).log()).sum() / math.log(len(mean))
