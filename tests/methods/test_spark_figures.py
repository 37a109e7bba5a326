"""SparK against figures that the authors' implementation gave, in float64 (commit a63e386).

Weights and images are made by a formula, so only figures are stored: the loss, the norms of the
sparse feature maps and of every parameter's gradient.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from hounsfield.methods.spark import SparK, SparKConfig
from hounsfield.models.backbone import Backbone
from hounsfield.models.layout import Layout

FIGURES: Mapping[str, Any] = json.loads(
    (Path(__file__).parents[1] / "reference" / "spark_figures.json").read_text()
)
STRIDES = (32, 16, 8, 4)  # the official lists run from the smallest map up


def drawn(key: str, shape: list[int], *, scale: float = 1.0) -> Tensor:
    chance = np.random.RandomState(zlib.crc32(key.encode()))
    return torch.from_numpy(chance.standard_normal(shape) * scale)


def value_of(official: str, shape: list[int]) -> Tensor:
    if official.startswith("mask_tokens"):
        return drawn(official, shape, scale=0.02).flatten()
    if len(shape) > 1:
        return drawn(official, shape, scale=float(np.sqrt(2 / np.prod(shape[1:]))))
    return drawn(official, shape, scale=0.1) + (1.0 if official.endswith("weight") else 0.0)


def our_name(official: str) -> str:
    """Of the parameter that the official implementation calls so."""
    first, *rest = official.split(".")
    if first in ("densify_norms", "densify_projs", "mask_tokens"):
        part = {"densify_norms": "norm", "densify_projs": "proj", "mask_tokens": "token"}[first]
        return ".".join(["densify", str(STRIDES[int(rest[0])]), part, *rest[1:]])
    layers = {"up_sample": "up", "conv.0": "conv1", "conv.1": "norm1", "conv.3": "conv2"}
    name = official.replace("sparse_encoder.sp_cnn", "backbone.net")
    name = name.replace("dense_decoder.dec", "decoder.blocks").replace("dense_decoder", "decoder")
    if name.startswith("decoder.blocks"):
        for theirs, ours in {**layers, "conv.4": "norm2"}.items():
            name = name.replace(theirs, ours)
    return name


@pytest.mark.parametrize("encoder", FIGURES)
def test_loss_features_and_gradients_are_those_of_the_authors_code(encoder: str) -> None:
    figures = FIGURES[encoder]
    net = timm.create_model(encoder, num_classes=0)
    spark = SparK(
        Backbone(encoder, net, channels=3),
        SparKConfig(decoder_width=figures["decoder_width"], decoder_stride=1, empty_std=0.0),
        image_size=figures["size"],
        corpus_size=figures["batch"],
    ).double()
    parameters = dict(spark.named_parameters())
    theirs = {our_name(name): (name, shape, norm) for name, shape, norm in figures["parameters"]}
    assert theirs.keys() == parameters.keys()
    with torch.no_grad():
        for name, (official, shape, _) in theirs.items():
            parameters[name].copy_(value_of(official, shape))
    images = drawn(f"{encoder}-input", [figures["batch"], 3, figures["size"], figures["size"]])
    active = torch.tensor(figures["active"])
    visible = torch.stack([image.flatten().nonzero().flatten() for image in active])
    layout = Layout(visible, grid=(active.shape[-2], active.shape[-1]))

    maps = spark.encoder(layout.pack(images), layout)
    loss = spark.step(images, layout).loss
    loss.backward()

    assert loss.item() == pytest.approx(figures["loss"], rel=1e-8)
    norms = [maps[stride].norm().item() for stride in reversed(STRIDES)]
    assert norms == pytest.approx(figures["feature_norms"], rel=1e-8)
    for name, (_, _, norm) in theirs.items():
        # a bias before a batch norm has no gradient but rounding, so small norms count absolutely
        assert parameters[name].grad is not None
        assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=1e-8, abs=1e-10), name
