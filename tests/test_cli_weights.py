from pathlib import Path

import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from hounsfield.cli import app
from hounsfield.models.backbone import create

runner = CliRunner()


def checkpoint(path: Path) -> Path:
    net = create("resnet10_tiny", channels=3).net
    tensors = {f"encoder.{name}": value for name, value in net.state_dict().items()}
    save_file(tensors | {"head.weight": torch.zeros(2)}, path, metadata={"method": "byol"})
    return path


def test_weights_says_what_a_file_is_and_what_it_fills(tmp_path: Path) -> None:
    done = runner.invoke(app, ["weights", str(checkpoint(tmp_path / "a.pth"))])
    assert done.exit_code == 0
    assert "origin   a hounsfield run of byol" in done.stdout
    assert "licence  not known" in done.stdout
    assert (
        "fills    resnet10_tiny: all 78 tensors under the prefix 'encoder.', 3 input channels; "
        "1 more are not the backbone's"
    ) in done.stdout
    assert "resnet10_half" not in done.stdout


def test_weights_lists_every_tensor_that_does_not_fit(tmp_path: Path) -> None:
    file = str(checkpoint(tmp_path / "a.pth"))
    done = runner.invoke(app, ["weights", file, "--backbone", "resnet18"])
    assert done.exit_code == 2
    lines = done.stdout.splitlines()
    assert "fills    none of the backbones that were tried" in lines
    own = create("resnet10_tiny", channels=3).net.state_dict()
    wanted = create("resnet18", channels=3).net.state_dict()
    counted = [name for name in wanted if not name.endswith("num_batches_tracked")]
    absent = {name for name in counted if name not in own}
    assert absent == {line.split()[1] for line in lines if line.startswith("         missing ")}
