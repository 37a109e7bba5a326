"""SparK's loss against arithmetic by hand."""

import pytest
import torch

from hounsfield.losses.masked_mse import content, masked_mse, patch_errors, patchify, unpatchify


def test_patches_go_row_by_row() -> None:
    image = torch.arange(16.0).view(1, 1, 4, 4)

    assert patchify(image, 2)[0, 1].tolist() == [2, 3, 6, 7]
    assert patchify(image, 2)[0, 2].tolist() == [8, 9, 12, 13]


def test_unpatchify_undoes_patchify() -> None:
    images = torch.randn(2, 3, 4, 6)

    assert torch.equal(unpatchify(patchify(images, 2), 2, height=4, width=6), images)


def test_the_target_is_the_patch_in_its_own_units() -> None:
    target = torch.tensor([[[10.0, 12.0, 14.0]]])  # mean 12, spread 2
    exact = torch.tensor([[[-1.0, 0.0, 1.0]]])

    assert patch_errors(exact, target).item() == pytest.approx(0.0, abs=1e-6)
    assert patch_errors(exact + 3, target).item() == pytest.approx(9.0, rel=1e-5)


def test_visible_patches_cost_nothing() -> None:
    target, prediction = torch.randn(1, 2, 8), torch.randn(1, 2, 8)
    hidden = torch.tensor([[1.0, 0.0]])

    error, weight = masked_mse(prediction, target, hidden)

    assert weight.item() == 1
    assert error.item() == pytest.approx(patch_errors(prediction, target)[0, 0].item())


def test_a_patch_that_spreads_by_the_threshold_counts_half_and_air_nothing() -> None:
    spread = torch.tensor([-1.0, 0.0, 1.0])  # its standard deviation is 1
    target = torch.stack([0.05 * spread, 5 * spread, torch.full_like(spread, -2.0)])[None]

    assert content(target, empty_std=0.05)[0].tolist() == pytest.approx([0.5, 0.9999, 0], abs=1e-6)


def test_without_a_threshold_every_patch_counts_as_in_the_paper() -> None:
    assert torch.equal(content(torch.zeros(2, 3, 4), empty_std=0.0), torch.ones(2, 3))
