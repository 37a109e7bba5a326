"""Two processes that share a batch do what one process does with all of it."""

import pytest
import torch

from hounsfield.train.device import fabric
from hounsfield.train.processes import launch
from methods.two_processes import everything, work

METHODS = ["byol", "moco_v2", "spark", "swav"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found, and what one did."""
    folder = tmp_path_factory.mktemp("processes")
    launch(fabric("cpu", processes=2), work, folder)
    pair = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return pair, everything(fabric("cpu"))


@pytest.mark.parametrize("name", METHODS)
def test_the_loop_leaves_the_gradients_and_states_of_one_process(found, name):
    pair, one = found
    expected = {key: value for key, value in one.items() if key.startswith(f"{name} ")}
    torch.testing.assert_close(pair[0][f"{name} losses"], expected.pop(f"{name} losses"))
    moved = [value.any() for key, value in expected.items() if "gradient of backbone" in key]
    assert len(moved) > 20
    assert all(moved)
    for key, value in expected.items():
        for rank in range(2):
            torch.testing.assert_close(
                pair[rank][key], value, rtol=1e-8, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}"
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
