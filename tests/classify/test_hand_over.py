"""The whole way of weights: a run, its description, a classifier from it, both out again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from hounsfield.classify.finetune import FinetuneConfig, finetune
from hounsfield.data.store import Store
from hounsfield.encoder import embed, load_encoder
from hounsfield.export.make import export
from hounsfield.models.recognise import describe
from hounsfield.study.config import Budget
from hounsfield.train.pretrain import PretrainConfig, pretrain


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's, of the machine
def test_weights_go_from_a_run_to_a_classifier_and_out(
    store: Path, config: Callable[..., FinetuneConfig], tmp_path: Path
) -> None:
    settings = {
        "method": "byol",
        "stores": [str(store)],
        "backbone": "resnet10_tiny",
        "image_size": 32,
        "batch_size": 8,
        "budget": {"steps": 3},
        "window": (-100, 400),
        "device": "cpu",
    }
    run = pretrain(PretrainConfig.model_validate(settings), tmp_path / "run").folder

    found = describe(run, ["resnet10_half", "resnet10_tiny"])
    assert found.filled == ("resnet10_tiny",)
    assert found.card.origin == "a hounsfield run of byol"
    assert found.card.stores == (Store.open(store).hash,)

    encoder = load_encoder(run)
    assert (encoder.image_size, encoder.window_hu) == (32, (-100, 400))
    assert embed(Store.open(store), encoder).shape == (144, 64)

    budget = Budget(steps=90, batch=16, lr=3e-3, looks=1, layer_decay=1.0)
    made = config(weights=str(run), backbone=None, window=None, budget=budget)
    kept = finetune(made, tmp_path / "classifier").kept
    assert kept.facts.weights["method"] == "byol"
    assert kept.facts.weights["matched"] == 78

    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    out = export(tmp_path / "classifier", tmp_path / "out", kind="safetensors")
    net = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    with torch.inference_mode():
        ours = kept.head(kept.encoder.backbone(images))
        torch.testing.assert_close(net(images), ours, rtol=1e-5, atol=1e-5)
    card = (export(run, tmp_path / "backbone", kind="safetensors") / "README.md").read_text()
    assert "20 patients, 120 slices" in card  # the test patients were left out
    assert "Pre-trained without labels by `byol`" in card
