"""Which precision is chosen, and that every method trains in bfloat16, without a GPU."""

import json

import pytest
import torch
from safetensors.torch import load_file

from hounsfield.errors import ConfigError
from hounsfield.methods import METHODS
from hounsfield.train.device import chosen
from hounsfield.train.pretrain import pretrain
from train.tiny_run import SMALL, config, store


@pytest.mark.parametrize(
    ("gpu", "bf16", "device", "expected"),
    [
        (True, True, "auto", ("cuda", "bf16-mixed")),
        (True, False, "auto", ("cuda", "32-true")),
        (True, True, "cpu", ("cpu", "32-true")),
        (False, False, "auto", ("cpu", "32-true")),
    ],
)
def test_bfloat16_is_for_gpus_that_compute_in_it(monkeypatch, gpu, bf16, device, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert chosen(device, "auto") == expected
    assert chosen("cpu", "bf16-mixed") == ("cpu", "bf16-mixed")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_in_bfloat16_with_weights_and_loss_in_float32(method, tmp_path):
    store(tmp_path / "store")
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        given = config(
            tmp_path / "store",
            method,
            precision=precision,
            image_size=64 if method == "spark" else 32,
            budget={"steps": 3},
            loop={"log_every": 1, "tensorboard": False},
            **{method: SMALL[method]},
        )
        run = pretrain(given, tmp_path / precision)
        lines = (run.folder / "metrics.jsonl").read_text().splitlines()
        losses[precision] = [json.loads(line)["loss"] for line in lines]
        weights = load_file(run.folder / "encoder.safetensors")
        assert {value.dtype for value in weights.values()} <= {torch.float32, torch.int64}
    assert losses["bf16-mixed"] == pytest.approx(losses["32-true"], rel=0.05)
    assert losses["bf16-mixed"] != losses["32-true"]


def test_a_precision_that_is_none_of_ours_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"precision = '16' .*'auto', '32-true' or 'bf16-mixed'"):
        config(tmp_path, "spark", precision="16")
