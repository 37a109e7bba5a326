import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from hounsfield.classify.kept import Facts, Kept, load, save
from hounsfield.cli import app
from hounsfield.encoder import load_encoder
from hounsfield.errors import ConfigError, OutputError, WeightsError
from hounsfield.export import formats
from hounsfield.export.make import export
from hounsfield.models.backbone import create
from hounsfield.models.recognise import describe

FACTS = {"method": "byol", "image_size": "32", "window_hu": "0.0,80.0"}


def a_run(folder: Path, backbone: str = "resnet10_tiny", channels: int = 1) -> Path:
    """A run folder as `pretrain` leaves it, with batch-norm statistics of its own."""
    folder.mkdir()
    net = create(backbone, channels=channels, seed=4).net
    chance = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if "running" in name:
            noise = 0.1 * torch.rand(value.shape, generator=chance)
            value.copy_(noise + 0.5 if "var" in name else noise)
    header = {**FACTS, "backbone": backbone, "channels": str(channels)}
    save_file(dict(net.state_dict()), folder / "encoder.safetensors", metadata=header)
    data = [{"store": "ab" * 32, "rows": "cd", "slices": 120, "patients": 7}]
    config = {"config": {"batch_size": 16, "seed": 3}, "identity": {"data": data}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "run.json").write_text(json.dumps({"steps": 50, "final_loss": 0.25}))
    return folder


def a_classifier(folder: Path, backbone: str = "resnet10_tiny") -> Kept:
    encoder = load_encoder(a_run(folder.with_name("start"), backbone))
    torch.manual_seed(0)
    head = nn.Linear(encoder.backbone.embed_dim, 3)
    facts = Facts(
        task="region",
        classes=("head", "chest", "belly"),
        slice_size=32,
        units=("hu",),
        patients={"train": 9, "val": 4},
        images={"train": 90, "val": 40},
        metrics={"test": {"patient": {"auc": 0.75, "n_patients": 6}}},
    )
    folder.mkdir()
    kept = Kept(encoder, head, facts)
    save(kept, folder)
    return kept


def features(run: Path, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return load_encoder(run).backbone(images)


def noise(channels: int = 1, images: int = 2) -> Tensor:
    return torch.randn(images, channels, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backbone", ["resnet10_tiny", "resnet18", "convnext_atto"])
def test_plain_timm_gives_the_same_features(tmp_path: Path, backbone: str) -> None:
    run = a_run(tmp_path / "run", backbone)
    out = export(run, tmp_path / "out", kind="safetensors")
    net = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    with torch.inference_mode():
        torch.testing.assert_close(net(noise()), features(run, noise()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_plain_torchvision_gives_the_same_features(tmp_path: Path, channels: int) -> None:
    run = a_run(tmp_path / "run", "resnet18", channels)
    out = export(run, tmp_path / "out", kind="torchvision")
    net = torchvision.models.resnet18(weights=None)
    net.fc = nn.Identity()
    net.load_state_dict(load_file(out / "model.safetensors"))
    grey = noise()
    with torch.inference_mode():
        theirs = net.eval()(grey.repeat(1, 3, 1, 1))
    ours = features(run, grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


def test_onnxruntime_gives_the_same_answers_at_any_batch_size(tmp_path: Path) -> None:
    import onnxruntime

    kept = a_classifier(tmp_path / "run")
    out = export(tmp_path / "run", tmp_path / "out", kind="onnx")
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert [answer.name for answer in session.get_outputs()] == ["features", "logits"]
    for count in (1, 2, 5):
        features, logits = session.run(None, {"images": noise(images=count).numpy()})
        with torch.inference_mode():
            ours = kept.encoder.backbone(noise(images=count))
            np.testing.assert_allclose(features, ours, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(logits, kept.head(ours), rtol=1e-4, atol=1e-4)
    assert ours.std() > 0.01  # something was compared
    assert not list(out.glob("*.data"))  # one file, whatever its name


@pytest.mark.parametrize("kind", ["safetensors", "torchvision"])
def test_the_probe_tells_right_from_wrong_loading(tmp_path: Path, kind: str) -> None:
    out = export(a_run(tmp_path / "run", "resnet18"), tmp_path / "out", kind=kind)
    probe = load_file(out / "probe.safetensors")
    tensors = load_file(out / "model.safetensors")
    net = torchvision.models.resnet18(weights=None)
    net.conv1 = nn.Conv2d(tensors["conv1.weight"].shape[1], 64, 7, 2, 3, bias=False)
    net.fc = nn.Identity()
    with torch.inference_mode():
        assert (net.eval()(probe["images"]) - probe["features"]).abs().max() > 0.1
        net.load_state_dict(tensors)
        torch.testing.assert_close(net(probe["images"]), probe["features"], rtol=1e-5, atol=1e-5)


def test_a_classifier_goes_out_with_its_head(tmp_path: Path) -> None:
    kept = a_classifier(tmp_path / "run")
    out = export(tmp_path / "run", tmp_path / "out", kind="safetensors")
    net = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    with torch.inference_mode():
        ours = kept.head(kept.encoder.backbone(noise()))
        torch.testing.assert_close(net(noise()), ours, rtol=1e-5, atol=1e-5)
    probe = load_file(out / "probe.safetensors")
    assert probe["logits"].shape == (3, 3)
    assert manifest(out)["origin"] == "a hounsfield classifier of region"
    card = (out / "README.md").read_text()
    assert "`head`, `chest`, `belly`, in the order of the logits" in card
    assert "- test, by patient: auc 0.750 (6 patients)" in card


def test_a_classifier_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    kept = a_classifier(tmp_path / "run")
    again = load(tmp_path / "run")
    images = np.random.default_rng(0).integers(-100, 200, (4, 32, 32)).astype(np.int16)
    is_hu = np.ones(4, bool)
    assert again.facts == kept.facts
    np.testing.assert_array_equal(again.logits(images, is_hu), kept.logits(images, is_hu))


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


def test_the_manifest_says_what_the_weights_are(tmp_path: Path) -> None:
    out = export(a_run(tmp_path / "run"), tmp_path / "out", kind="safetensors")
    told = manifest(out)
    assert told["method"] == "byol"
    assert told["window_hu"] == [0, 80]
    assert (told["image_size"], told["channels"]) == (32, 1)
    assert told["corpus"] == [{"store": "ab" * 32, "slices": 120, "patients": 7}]
    assert told["training"] == {"batch_size": 16, "seed": 3}
    assert told["metrics"] == {"steps": 50, "final_loss": 0.25}
    assert (told["licence"], told["licence_of_the_data"]) == ("", "")
    card = (out / "README.md").read_text()
    assert "clipped to 0 to 80" in card
    assert "7 patients, 120 slices" in card
    assert "On no labelled task" in card
    assert str(tmp_path) not in card + json.dumps(told)  # no folder of this machine


def test_an_export_loads_as_a_source_and_remembers_where_it_came_from(tmp_path: Path) -> None:
    out = export(a_run(tmp_path / "run"), tmp_path / "out", kind="safetensors")
    encoder = load_encoder(out)
    assert encoder.card.origin == "a hounsfield run of byol"
    assert encoder.card.stores == ("ab" * 32,)
    lines = describe(out, ["resnet10_tiny"]).lines()
    assert f"corpus   store {'ab' * 32}" in lines
    assert lines[-1].startswith("fills    resnet10_tiny: all 78 tensors without a prefix, 1 input")
    assert encoder.window_hu == (0, 80)
    torch.testing.assert_close(encoder.backbone(noise()), features(tmp_path / "run", noise()))


def test_weights_that_answer_differently_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = formats.timm_state
    monkeypatch.setattr(
        formats, "timm_state", lambda net: {k: v * 1 + 0.01 for k, v in honest(net).items()}
    )
    with pytest.raises(WeightsError, match="answer the probe with a difference"):
        export(a_run(tmp_path / "run"), tmp_path / "out", kind="safetensors")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_collapsed_network_is_not_exported(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    tensors = load_file(run / "encoder.safetensors")
    tensors["layer4.0.bn2.bias"] -= 100
    tensors["layer4.0.downsample.1.bias"] -= 100  # the last ReLU lets nothing through
    save_file(tensors, run / "encoder.safetensors", {**FACTS, "backbone": "resnet10_tiny"})
    with pytest.raises(WeightsError, match="answers every probe image alike"):
        export(run, tmp_path / "out", kind="safetensors")


def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="unknown format 'keras'"):
        export(run, tmp_path / "out", kind="keras")
    with pytest.raises(OutputError, match="exists already"):
        export(run, run, kind="safetensors")
    with pytest.raises(WeightsError, match="torchvision has no 'resnet10_tiny'"):
        export(run, tmp_path / "out", kind="torchvision")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"needs onnxscript.*hounsfield\[onnx\]"):
        export(run, tmp_path / "out", kind="onnx")


def test_the_verb_writes_the_folder(tmp_path: Path) -> None:
    run, out = a_run(tmp_path / "run"), tmp_path / "out"
    done = CliRunner().invoke(app, ["export", str(run), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "config.json",
        "manifest.json",
        "model.safetensors",
        "probe.safetensors",
    }
