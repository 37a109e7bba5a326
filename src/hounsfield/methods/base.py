"""What every method is: views in, a loss out, a backbone that is worth keeping."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from hounsfield.config import Config
from hounsfield.errors import ConfigError
from hounsfield.models.backbone import Backbone


@dataclass(frozen=True)
class Step:
    """What one forward pass gives: a scalar loss to descend, and detached scalars to log."""

    loss: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Plateau:
    """Where a loss rests while a method learns nothing.

    Attributes:
        loss: The resting level.
        within: How near to it a loss must stay to be called resting.
        name: The level in a formula's words.
        meaning: What the network does there.
        cause: What most likely brought it there.
        change: The settings to change.
    """

    loss: float
    within: float
    name: str
    meaning: str
    cause: str
    change: str


class Method(nn.Module, ABC):
    """A pre-training objective around a backbone.

    A method knows nothing of data, devices, steps or optimisers. Everything that must survive a
    crash (queues, slow copies, prototypes) is a parameter or a buffer. Chance inside `forward`
    comes from `torch`'s generator, which the loop seeds anew for every step by name.
    """

    name: ClassVar[str]  # as in `method = "..."` of a config
    config_class: ClassVar[type[Config]]
    recipe: ClassVar[str]  # the views that it is fed with by default, a name in `augment.views`

    backbone: Backbone

    @abstractmethod
    def forward(self, views: Sequence[Tensor]) -> Step:
        """The loss of one batch; each view is `(batch, channels, height, width)`, normalised."""

    def plateau(self) -> Plateau | None:
        """Where the loss rests when nothing is learnt; None where no level tells that."""
        return None

    def before_step(self, progress: float) -> None:
        """Set what follows a schedule; `progress` runs from 0 to 1 over the whole budget."""
        del progress

    def after_step(self, progress: float) -> None:
        """Update what the optimiser does not: slow copies, queues."""
        del progress


def expect(views: Sequence[Tensor], count: int, *, method: str) -> Sequence[Tensor]:
    """The views, of which there must be `count`.

    Raises:
        ConfigError: There are more or fewer: the recipe is another method's.
    """
    if len(views) != count:
        raise ConfigError(
            f"{method} got {len(views)} views of an image and takes {count}. "
            "Use a recipe that makes them, or leave the recipe out."
        )
    return views
