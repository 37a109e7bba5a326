"""Backbones by timm's names, with the facts that the methods need."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers import DropPath
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from hounsfield.errors import ConfigError, first_line, one_of
from hounsfield.wording import plural

# Ours: small residual networks for few labels and few cores, built from timm's own parts.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "resnet10_half": {"layers": (1, 1, 1, 1), "channels": (32, 64, 128, 256)},
    "resnet10_tiny": {"layers": (1, 1, 1, 1), "channels": (8, 16, 32, 64)},
}


class Backbone(nn.Module):
    """A timm network without a classifier.

    Attributes:
        name: timm's name, or one of `SMALL`.
        channels: Input channels.
        net: The timm network; its parameters bear timm's own names.
        embed_dim: Length of a feature vector.
        stride: Pixels of the input to one of the last feature map.
    """

    def __init__(self, name: str, net: nn.Module, *, channels: int) -> None:
        super().__init__()
        self.name = name
        self.channels = channels
        self.net = net
        # Some networks (VGG, MobileNetV3) widen their last map once more before the classifier.
        widened = getattr(net, "head_hidden_size", None)
        self.embed_dim = int(widened or net.num_features)  # type: ignore[arg-type]
        self.stride = int(net.feature_info[-1]["reduction"])  # type: ignore[index]

    def check_size(self, size: int) -> None:
        """Refuse images that do not go through; some networks take one size alone.

        Args:
            size: Height and width of the images in pixels.

        Raises:
            ConfigError: The network fails on an image of this size.
        """
        training, some = self.training, next(self.parameters())
        try:
            with torch.no_grad():
                self.eval()(some.new_zeros(1, self.channels, size, size))
        except Exception as error:  # networks assert, divide and index as they like
            raise ConfigError(
                f"images of {size} px do not go through {self.name}: "
                f"{first_line(error).rstrip('.')}. "
                f"{_made_for(self.net, size)}"
            ) from error
        finally:
            self.train(training)

    def forward(self, images: Tensor) -> Tensor:
        """Features `(batch, embed_dim)` of images `(batch, channels, height, width)`."""
        return self.net(images)


def create(name: str, *, channels: int = 1, seed: int = 0, drop_path: float = 0.0) -> Backbone:
    """A freshly initialised backbone.

    Args:
        name: A timm convolutional network's name, or one of `SMALL`.
        channels: Input channels.
        seed: Decides the initial weights; the global generator is left as it was.
        drop_path: Of the last residual branch, the share of images that skip it in training
            (stochastic depth, arXiv 1603.09382); it grows from 0 at the first.

    Raises:
        ConfigError: No network has this name, it has no spatial feature maps, or it knows no
            stochastic depth and is to have it.
    """
    if name not in SMALL and not timm.is_model(name):
        raise ConfigError(one_of("backbone", name, [*SMALL, *timm.list_models()]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in SMALL:
            net: nn.Module = ResNet(
                BasicBlock,
                in_chans=channels,
                num_classes=0,
                drop_path_rate=drop_path,
                **SMALL[name],
            )
        else:
            net = _from_timm(name, channels=channels, drop_path=drop_path)
    if not hasattr(net, "feature_info"):
        raise ConfigError(f"backbone {name!r} has no spatial feature maps; choose a CNN.")
    return Backbone(name, net, channels=channels)


def _from_timm(name: str, *, channels: int, drop_path: float) -> nn.Module:
    options = {"drop_path_rate": drop_path} if drop_path else {}  # some know not even none of it
    try:
        net = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=0, **options)
        drops = any(isinstance(layer, DropPath) for layer in net.modules())  # not all say a word
    except Exception as error:  # the constructors of a thousand networks
        if not (isinstance(error, TypeError) and "drop_path_rate" in str(error)):
            raise ConfigError(
                f"timm cannot make the backbone {name!r} with {plural(channels, 'input channel')}: "
                f"{first_line(error).rstrip('.')}. Choose another."
            ) from error
        drops = False
    if drop_path and not drops:
        raise ConfigError(
            f"backbone {name!r} has no residual branches that timm can drop, and drop_path = "
            f"{drop_path}. Set drop_path = 0, or choose a ResNet or ConvNeXt, for example."
        )
    return net


def _made_for(net: nn.Module, size: int) -> str:
    """What to do about a size that does not go through."""
    made_for = (getattr(net, "pretrained_cfg", None) or {}).get("input_size", (0,))[-1]
    if made_for in (0, size):
        return "Choose another backbone."
    return f"It is made for {made_for} px: use these, or a backbone that takes other sizes."
