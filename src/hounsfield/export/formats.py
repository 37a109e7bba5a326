"""The formats: how each is written, and how a plain library reads it back."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hounsfield.augment.recipe import MEAN, STD
from hounsfield.encoder import Encoder
from hounsfield.errors import ConfigError
from hounsfield.export.network import (
    Network,
    timm_arguments,
    timm_head,
    timm_state,
    torchvision_net,
    torchvision_state,
)
from hounsfield.files import disk_errors, write_json
from hounsfield.models.fit import first_layer
from hounsfield.models.weights_written import write_weights

Answer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Format:
    """A way out.

    Attributes:
        file: Name of the file with the weights.
        write: Writes it, and what must lie beside it, into a folder.
        read: From that folder to a function that a plain library computes: normalised images in,
            logits out, or features where there is no head.
        tolerance: Greatest difference to ours that is let through.
        channels: Input channels, from those of the backbone.
    """

    file: str
    write: Callable[[Network, Encoder, Path], None]
    read: Callable[[Network, Path], Answer]
    tolerance: float
    channels: Callable[[int], int]


def _write_timm(network: Network, encoder: Encoder, folder: Path) -> None:
    """`model.safetensors` and the `config.json` by which timm builds the network around it."""
    write_weights(folder / "model.safetensors", timm_state(network), _header(encoder))
    architecture, arguments = timm_arguments(network)
    channels, size = network.backbone.channels, encoder.image_size
    write_json(
        folder / "config.json",
        {
            "architecture": architecture,
            "num_classes": network.classes(),
            "num_features": network.backbone.net.num_features,
            "model_args": arguments,
            "pretrained_cfg": {
                "input_size": [channels, size, size],
                "fixed_input_size": False,
                "interpolation": "bilinear",
                "crop_pct": 1.0,
                "mean": [MEAN] * channels,
                "std": [STD] * channels,
                "num_classes": network.classes(),
                "first_conv": first_layer(network.backbone.net).removesuffix(".weight"),
                "classifier": timm_head(network) if network.head else "fc",
            },
        },
    )


def _read_timm(network: Network, folder: Path) -> Answer:
    import timm

    del network
    return _plain(timm.create_model(f"local-dir:{folder}", pretrained=True))


def _write_torchvision(network: Network, encoder: Encoder, folder: Path) -> None:
    header = {**_header(encoder), "channels": "3"}
    write_weights(folder / "model.safetensors", torchvision_state(network), header)


def _read_torchvision(network: Network, folder: Path) -> Answer:
    net = torchvision_net(network)
    net.load_state_dict(load_file(folder / "model.safetensors"))
    return _plain(net)


def _write_onnx(network: Network, encoder: Encoder, folder: Path) -> None:
    _needs("onnx", "onnxscript", "onnxruntime")
    images = torch.zeros(2, network.backbone.channels, encoder.image_size, encoder.image_size)
    program = torch.onnx.export(
        network,
        (images,),
        dynamo=True,
        input_names=["images"],
        output_names=["features", "logits"][: 2 if network.head else 1],
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    if program is None:  # only the older exporter answers so
        raise ConfigError("this version of torch exports no ONNX program. Install torch >= 2.5.")
    with disk_errors(folder):
        program.save(str(folder / "model.onnx"), external_data=False)


def _read_onnx(network: Network, folder: Path) -> Answer:
    import onnxruntime

    del network
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )

    def answer(images: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(session.run(None, {"images": images.numpy()})[-1]))

    return answer


def _needs(*packages: str) -> None:
    from importlib.util import find_spec

    absent = [name for name in packages if find_spec(name) is None]
    if absent:
        raise ConfigError(
            f"--format onnx needs {', '.join(absent)}. Install with: pip install 'hounsfield[onnx]'"
        )


def _header(encoder: Encoder) -> dict[str, str]:
    """What a file tells of its input, wherever it is copied to."""
    low, high = encoder.window_hu
    facts: dict[str, Any] = {
        "format": "pt",  # timm and transformers look for it
        "backbone": encoder.backbone.name,
        "channels": encoder.backbone.channels,
        "image_size": encoder.image_size,
        "window_hu": f"{low},{high}",
        "method": encoder.card.method,
        "stores": json.dumps(encoder.card.stores),
    }
    return {name: str(value) for name, value in facts.items()}


def _plain(net: nn.Module) -> Answer:
    net.eval()

    @torch.inference_mode()
    def answer(images: Tensor) -> Tensor:
        return net(images)

    return answer


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(
        "model.safetensors", _write_timm, _read_timm, 1e-5, channels=lambda ours: ours
    ),
    "torchvision": Format(
        "model.safetensors", _write_torchvision, _read_torchvision, 1e-5, channels=lambda _: 3
    ),
    "onnx": Format("model.onnx", _write_onnx, _read_onnx, 1e-4, channels=lambda ours: ours),
}
