"""BYOL: predict what a slow copy makes of the other view; no negatives.

Paper: "Bootstrap Your Own Latent" (arXiv 2006.07733).
Original code:
https://github.com/google-deepmind/deepmind-research/blob/4822a45504cb05042841a358f070bba35c6fbc24/byol/byol_experiment.py

Like the original, each view makes its own pass, with its own batch statistics, those of the joint
batch where several processes share a step.

Unlike the original:

- The slow copy begins equal to the fast network, not with weights of its own.
- The heads' last layers have a bias.
- No view has its bright pixels inverted; in CT that would turn bone into air.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from hounsfield.config import Config
from hounsfield.losses.cosine import cosine_regression
from hounsfield.methods.base import Method, Plateau, Step, expect
from hounsfield.models.backbone import Backbone
from hounsfield.models.ema import ema_update, slow_copy
from hounsfield.models.heads import mlp_batch_norm


class BYOLConfig(Config):
    """The paper's settings (arXiv 2006.07733, section 3.3).

    Attributes:
        momentum: Of the slow copy at the start; it rises to 1 along a cosine.
        hidden_dim: Width of the heads' hidden layers.
        projection_dim: Length of a projection.
    """

    momentum: float = Field(0.996, ge=0, le=1)
    hidden_dim: int = Field(4096, ge=1)
    projection_dim: int = Field(256, ge=1)


class BYOL(Method):
    """A fast network predicts the slow one's projection of the other view, both ways."""

    name: ClassVar[str] = "byol"
    config_class: ClassVar[type[Config]] = BYOLConfig
    recipe: ClassVar[str] = "uneven_views"

    def __init__(
        self, backbone: Backbone, config: BYOLConfig, *, image_size: int, corpus_size: int
    ) -> None:
        super().__init__()
        del image_size, corpus_size
        hidden, projection = config.hidden_dim, config.projection_dim
        self.config = config
        self.backbone = backbone
        self.projector = mlp_batch_norm(backbone.embed_dim, hidden, projection)
        self.predictor = mlp_batch_norm(projection, hidden, projection)
        self.slow_backbone = slow_copy(self.backbone)
        self.slow_projector = slow_copy(self.projector)

    def forward(self, views: Sequence[Tensor]) -> Step:
        """The loss of one batch of two views, each predicted from the other."""
        a, b = expect(views, 2, method=self.name)
        a_to_b = cosine_regression(self.predict(a), self.target(b))
        b_to_a = cosine_regression(self.predict(b), self.target(a))
        loss = a_to_b + b_to_a
        return Step(loss, {"target_similarity": 1 - loss.detach() / 4})

    def predict(self, view: Tensor) -> Tensor:
        """Predictions `(batch, projection_dim)` of the slow network's projections."""
        return self.predictor(self.projector(self.backbone(view)))

    @torch.no_grad()
    def target(self, view: Tensor) -> Tensor:
        """Projections `(batch, projection_dim)` of the slow network."""
        return self.slow_projector(self.slow_backbone(view))

    def plateau(self) -> Plateau:
        """Where both networks say the same of every image."""
        return Plateau(
            loss=0.0,
            within=0.002,
            name="least possible",
            meaning="every image has the same projection, or the views hardly differ",
            cause="the slow copy follows too fast, or the learning rate is too high",
            change="Raise byol.momentum, lower optim.lr, raise batch_size, or take views that "
            "differ more (recipe).",
        )

    def momentum(self, progress: float) -> float:
        """From the setting to 1 along a cosine."""
        return 1 - (1 - self.config.momentum) * (math.cos(math.pi * progress) + 1) / 2

    def after_step(self, progress: float) -> None:
        """The slow copies follow."""
        ema_update(self.slow_backbone, self.backbone, self.momentum(progress))
        ema_update(self.slow_projector, self.projector, self.momentum(progress))
