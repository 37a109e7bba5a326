"""What is exported: one network from normalised images to features, and to logits if it has a head.

Plain timm or torchvision must be able to build it, so its tensors bear their names.
"""

from typing import Any

from torch import Tensor, nn

from hounsfield.encoder import Encoder
from hounsfield.errors import WeightsError
from hounsfield.models.backbone import SMALL
from hounsfield.models.fit import first_layer


class Network(nn.Module):
    """An encoder's backbone with a head, or without one.

    Args:
        encoder: Whose backbone.
        head: From features to logits.
    """

    def __init__(self, encoder: Encoder, head: nn.Linear | None) -> None:
        super().__init__()
        self.backbone = encoder.backbone
        self.head = head
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features, then logits where there is a head, of normalised images."""
        features = self.backbone(images)
        return (features,) if self.head is None else (features, self.head(features))

    def classes(self) -> int:
        """How many the head has, 0 without one."""
        return 0 if self.head is None else self.head.out_features


def timm_state(network: Network) -> dict[str, Tensor]:
    """All tensors under timm's own names, the head under timm's name for it."""
    state = dict(network.backbone.net.state_dict())
    if network.head is not None:
        name = timm_head(network)
        state |= {f"{name}.{key}": value for key, value in network.head.state_dict().items()}
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}


def timm_head(network: Network) -> str:
    """The name of the last linear layer in timm.

    Raises:
        WeightsError: This network's classifier is not one linear layer.
    """
    known = getattr(network.backbone.net, "pretrained_cfg", {}).get("classifier") or "fc"
    if not isinstance(known, str):
        raise WeightsError(
            f"a {network.backbone.name} classifies with several layers ({', '.join(known)}) in "
            "timm; a single linear head cannot take their place. Export its backbone only."
        )
    return known


def timm_arguments(network: Network) -> tuple[str, dict[str, Any]]:
    """The name and the arguments from which `timm.create_model` builds this network."""
    backbone = network.backbone
    arguments: dict[str, Any] = {"in_chans": backbone.channels}
    if backbone.name not in SMALL:
        return backbone.name, arguments
    small = {key: list(v) if isinstance(v, tuple) else v for key, v in SMALL[backbone.name].items()}
    return "resnet18", {**arguments, **small}  # timm builds ours from its arguments


def torchvision_state(network: Network) -> dict[str, Tensor]:
    """All tensors under torchvision's names, the first layer spread over three channels.

    A grey image copied into three channels then gives the same features.

    Raises:
        WeightsError: torchvision has no network with these names and shapes.
    """
    state = {name: value.clone() for name, value in timm_state(network).items()}
    first = first_layer(network.backbone.net)
    state[first] = (state[first].sum(dim=1, keepdim=True) / 3).repeat(1, 3, 1, 1)
    wanted = {name: value.shape for name, value in torchvision_net(network).state_dict().items()}
    if wanted != {name: value.shape for name, value in state.items()}:
        raise WeightsError(
            f"torchvision's {network.backbone.name} has other names or shapes than this one. "
            "Use --format safetensors (timm's names) or --format onnx."
        )
    return state


def torchvision_net(network: Network) -> nn.Module:
    """The network of this name that torchvision builds, with as many classes as ours.

    Raises:
        WeightsError: torchvision has no network of this name, or none of its ResNets.
    """
    from torchvision import models

    name = network.backbone.name
    shared = [known for known in models.list_models(models) if "resne" in known]
    if name not in shared:
        raise WeightsError(
            f"torchvision has no {name!r} with timm's names; these have: {', '.join(shared)}. Use "
            "--format safetensors (timm's names) or --format onnx."
        )
    net: nn.Module = models.get_model(name, weights=None)
    net.fc = (
        nn.Linear(network.backbone.embed_dim, classes)
        if (classes := network.classes())
        else nn.Identity()
    )
    return net.eval()
