"""How a view lies in its image: one affine map, drawn a sample."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from hounsfield.augment import ops


@dataclass(frozen=True)
class Geometry:
    """How a view lies in its image.

    Attributes:
        scale: Least and greatest share of the image's area.
        ratio: Least and greatest width / height.
        degrees: The view is turned by up to this much, either way.
        turn_share: Share of the views that are turned.
        mirror_x: Share of the views mirrored left to right.
        mirror_y: Share of the views mirrored top to bottom.
        turn_first: Turn about the image's centre and then crop, rather than about the crop's own.
        mode: `"bilinear"` or `"bicubic"`.
    """

    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    degrees: float = 0.0
    turn_share: float = 1.0
    mirror_x: float = 0.0
    mirror_y: float = 0.0
    turn_first: bool = False
    mode: str = "bilinear"

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Tensor:
        """Affine maps `(batch, 2, 3)` for a batch of images; see `ops.view_map`."""
        box = ops.sample_box(
            batch, height, width, scale=self.scale, ratio=self.ratio, generator=generator
        )
        limit = math.radians(self.degrees)
        turned = ops.coin(batch, self.turn_share, generator)
        angle = ops.uniform(batch, -limit, limit, generator) * turned
        mirrored = torch.stack(
            [ops.coin(batch, share, generator) for share in (self.mirror_x, self.mirror_y)], dim=1
        )
        middle = box.new_tensor([width / 2, height / 2]).expand(batch, 2)
        return ops.view_map(
            box,
            angle=angle,
            mirror=1 - 2 * mirrored.float(),
            pivot=middle if self.turn_first else box[:, :2],
        )
