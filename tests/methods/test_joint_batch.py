"""Two processes that share a batch do what one process does with all of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).with_name("two_processes.py")
METHODS = ["byol", "moco_v2", "spark", "swav"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found, and what one did."""
    folder = tmp_path_factory.mktemp("processes")
    source = Path(__file__).parents[2] / "src"
    surroundings = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, PROGRAM, str(rank), folder], env=surroundings)
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=280) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    names = ("0.pt", "1.pt", "alone.pt")
    first, second, one = (torch.load(folder / name, weights_only=True) for name in names)
    return [first, second], one


@pytest.mark.parametrize("name", METHODS)
def test_gradients_losses_and_states_are_those_of_one_process(found, name):
    pair, one = found
    expected = {key: value for key, value in one.items() if key.startswith(f"{name} ")}
    assert any("gradient of backbone" in key for key in expected)
    for key, value in expected.items():
        for rank in range(2):
            torch.testing.assert_close(
                pair[rank][key], value, rtol=1e-8, atol=1e-10, msg=lambda m, key=key: f"{key}: {m}"
            )


def test_joint_batch_norm_and_the_gather_are_torchs_on_the_joint_batch(found):
    pair, one = found
    keys = [key for key in one if not key.startswith(tuple(METHODS))]
    assert len(keys) == 23
    for key in keys:
        loose = {"rtol": 1e-2, "atol": 1e-2} if key == "in half precision" else {}
        torch.testing.assert_close(
            pair[0][key], one[key], **loose, msg=lambda m, key=key: f"{key}: {m}"
        )


def test_the_processes_really_had_different_rows(found):
    pair, _ = found
    torch.testing.assert_close(
        pair[0]["gathered"], torch.arange(8.0, dtype=torch.float64)[:, None], rtol=0, atol=0
    )
