"""Each operation against somebody else's, or against what it must do by its definition."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as theirs
from torchvision.transforms import RandomResizedCrop

from hounsfield.augment import ops


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=chance(seed)) * 100


def still(batch: int, box: list[float], *, angle: float = 0.0, mirror=(1.0, 1.0)) -> torch.Tensor:
    """The map of one box, for all."""
    boxes = torch.tensor(box).repeat(batch, 1)
    return ops.view_map(
        boxes,
        angle=torch.full((batch,), angle),
        mirror=torch.tensor(mirror).repeat(batch, 1),
        pivot=boxes[:, :2],
    )


WHOLE = [32.0, 32.0, 64.0, 64.0]  # of an image of 64 px: centre x, y, width, height


def read(image: torch.Tensor, maps: torch.Tensor, size: int, *, depth: int = 0) -> torch.Tensor:
    return ops.resample(ops.pyramid(image, depth), maps, size=size)


# --- crop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(100, 100), (60, 140)])
def test_boxes_are_distributed_as_torchvisions_random_resized_crop(height, width):
    scale, ratio = (0.2, 1.0), (3 / 4, 4 / 3)
    torch.manual_seed(0)
    blank = torch.empty(1, height, width)
    drawn = [RandomResizedCrop.get_params(blank, scale, ratio) for _ in range(3000)]
    expected = np.array([[left + w / 2, top + h / 2, w, h] for top, left, h, w in drawn])
    boxes = ops.sample_box(
        3000, height, width, scale=scale, ratio=ratio, generator=chance()
    ).numpy()
    for column in range(4):  # torchvision rounds to pixels, which is within the test's resolution
        noise = np.random.default_rng(column).uniform(-0.5, 0.5, (2, 3000))
        found = scipy.stats.ks_2samp(boxes[:, column] + noise[0], expected[:, column] + noise[1])
        assert found.pvalue > 1e-3


def test_boxes_lie_inside_the_image_with_the_area_and_ratio_asked_for():
    box = ops.sample_box(
        500, 80, 120, scale=(0.1, 0.6), ratio=(0.5, 2.0), generator=chance(1)
    ).double()
    low, high = box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2
    assert (low >= -1e-4).all()
    assert (high <= torch.tensor([120, 80]) + 1e-4).all()
    area, ratio = box[:, 2] * box[:, 3] / (80 * 120), box[:, 2] / box[:, 3]
    assert 0.1 <= area.min() < 0.12
    assert 0.58 < area.max() <= 0.6001
    assert 0.5 <= ratio.min() < 0.55
    assert 1.9 < ratio.max() <= 2.0001


def test_a_box_that_never_fits_becomes_the_largest_central_one_of_an_allowed_ratio():
    box = ops.sample_box(3, 20, 200, scale=(1.0, 1.0), ratio=(0.75, 4 / 3), generator=chance())
    expected = torch.tensor([100, 10, 20 * 4 / 3, 20]).repeat(3, 1)
    torch.testing.assert_close(box, expected)


# --- resampling -----------------------------------------------------------------------------------


def test_the_whole_image_at_its_own_size_is_itself():
    image = images(2, 1, 64, 64)
    torch.testing.assert_close(read(image, still(2, WHOLE), 64), image, rtol=0, atol=1e-3)


def test_an_enlarged_crop_equals_torchvisions_away_from_its_border():
    image = images(2, 1, 64, 64)
    expected = theirs.resized_crop(image, 10, 20, 30, 40, [64, 64], antialias=False)
    got = read(image, still(2, [40.0, 25.0, 40.0, 30.0]), 64)
    # torchvision cuts first and repeats the cut's border; here the border sees its neighbours
    torch.testing.assert_close(got[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], rtol=0, atol=1e-2)


def test_mirrors_are_flips_and_a_right_angle_is_a_quarter_turn():
    image = images(2, 1, 64, 64)
    for mirror, dims in (((-1.0, 1.0), [3]), ((1.0, -1.0), [2])):
        got = read(image, still(2, WHOLE, mirror=mirror), 64)
        torch.testing.assert_close(got, image.flip(dims), rtol=0, atol=1e-3)
    turned = read(image, still(2, WHOLE, angle=math.pi / 2), 64)
    torch.testing.assert_close(turned, torch.rot90(image, 1, [2, 3]), rtol=0, atol=1e-2)


def test_a_turn_equals_torchvisions_rotation():
    image = images(1, 1, 64, 64)
    expected = theirs.rotate(image, 20.0, theirs.InterpolationMode.BILINEAR, fill=[0.0])
    got = read(image, still(1, WHOLE, angle=math.radians(20)), 64)
    inside = read(torch.ones_like(image), still(1, WHOLE, angle=math.radians(20)), 64) > 0.999
    torch.testing.assert_close(got * inside, expected * inside, rtol=0, atol=2e-2)
    assert got[0, 0, 0, 0] == 0  # the corner is outside


def test_turning_about_the_images_centre_and_then_cropping_is_two_steps_in_one():
    image = images(1, 1, 64, 64)
    turned = read(image, still(1, WHOLE, angle=0.5), 64)
    box = [40.0, 24.0, 16.0, 16.0]
    expected = read(turned, still(1, box), 16)
    boxes = torch.tensor([box])
    maps = ops.view_map(
        boxes,
        angle=torch.tensor([0.5]),
        mirror=torch.ones(1, 2),
        pivot=torch.tensor([[32.0, 32.0]]),
    )
    torch.testing.assert_close(read(image, maps, 16), expected, rtol=0, atol=1e-2)


def test_a_coarse_view_averages_the_pixels_that_it_cannot_show():
    image = images(2, 1, 64, 64)
    got = read(image, still(2, WHOLE), 32, depth=2)
    torch.testing.assert_close(got, F.avg_pool2d(image, 2), rtol=0, atol=1e-3)
    checkers = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 100.0)[None, None]
    seen = read(checkers, still(1, [32.0, 32.0, 58.0, 58.0]), 32, depth=1)
    torch.testing.assert_close(seen, torch.full_like(seen, 50), rtol=0, atol=1e-2)


def test_views_of_different_octaves_in_one_batch_are_those_made_alone():
    image = images(3, 1, 64, 64)
    boxes = torch.tensor([[32.0, 32, 64, 64], [30, 30, 20, 20], [20, 40, 40, 40]])
    maps = ops.view_map(boxes, angle=torch.zeros(3), mirror=torch.ones(3, 2), pivot=boxes[:, :2])
    assert ops.octaves(maps, 16).tolist() == [2, 0, 1]
    together = read(image, maps, 16, depth=2)
    alone = [read(image[i : i + 1], maps[i : i + 1], 16, depth=2) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-4)


def test_the_grid_is_torchs():
    theta = torch.randn(3, 2, 3, generator=chance(2))
    expected = F.affine_grid(theta, [3, 1, 7, 7], align_corners=False)
    torch.testing.assert_close(ops._grid(theta, 7), expected)


def test_halving_an_odd_image_keeps_its_mean():
    image = images(1, 1, 63, 65)
    (_, half) = ops.pyramid(image, 1)
    assert half.shape == (1, 1, 32, 33)
    columns = torch.linspace(0, 1, 65).expand(1, 1, 63, 65)
    assert ops.pyramid(columns, 1)[1].mean() == pytest.approx(0.5, abs=1e-6)


# --- intensity ------------------------------------------------------------------------------------


def test_a_window_is_numpys_clip_of_a_line():
    image, low, high = images(2, 1, 8, 8), torch.tensor([-50.0, 0.0]), torch.tensor([50.0, 80.0])
    expected = [
        np.clip((image[i].numpy() - float(low[i])) / float(high[i] - low[i]), 0, 1)
        for i in range(2)
    ]
    got = ops.window(image, low, high)
    np.testing.assert_allclose(got.numpy(), np.stack(expected), atol=1e-6)
    assert (got.min(), got.max()) == (0, 1)


def test_random_windows_keep_to_their_shift_and_stretch():
    count = 2000
    low, high = ops.sample_window(
        torch.full((count,), -1000.0),
        torch.full((count,), 1000.0),
        shift=torch.full((count,), 0.15),
        stretch=torch.tensor([0.4, 1.2]).repeat(count, 1),
        generator=chance(),
    )
    width, centre = high - low, (high + low) / 2
    assert 799 < width.min() < 805
    assert 2380 < width.max() < 2401
    assert -301 < centre.min() < -295
    assert 295 < centre.max() < 301
    found = scipy.stats.kstest(np.log(width.numpy() / 2000), "uniform", (np.log(0.4), np.log(3)))
    assert found.pvalue > 1e-3


def test_blur_is_scipys_gaussian_filter_and_keeps_a_constant_to_its_border():
    image = images(2, 1, 48, 40)
    sigma = torch.tensor([0.7, 2.0])
    got = ops.blur(image, sigma)
    for i in range(2):
        expected = scipy.ndimage.gaussian_filter(image[i, 0].numpy(), float(sigma[i]), truncate=8)
        np.testing.assert_allclose(got[i, 0, 12:-12, 12:-12], expected[12:-12, 12:-12], atol=1e-3)
    flat = torch.full((2, 1, 20, 20), -700.0)
    torch.testing.assert_close(ops.blur(flat, sigma), flat)


def test_noise_has_the_deviation_asked_for_in_the_images_own_unit():
    flat = torch.zeros(2, 1, 200, 200)
    noise = ops.sample_noise(flat, chance())
    noisy = ops.add_noise(flat, noise, torch.tensor([0.0, 12.0]))
    assert noisy[0].std() == 0
    assert noisy[1].std() == pytest.approx(12.0, rel=0.02)


def test_gamma_brightness_and_contrast_are_torchvisions():
    image = torch.rand(2, 1, 16, 16, generator=chance())
    factors = torch.tensor([0.7, 1.3])
    for mine, other in (
        (ops.gamma, theirs.adjust_gamma),
        (ops.brighten, theirs.adjust_brightness),
        (ops.contrast, theirs.adjust_contrast),
    ):
        rgb = image.expand(-1, 3, -1, -1)  # grey in three channels, as torchvision knows it
        expected = [other(rgb[i], float(factors[i]))[:1] for i in range(2)]
        torch.testing.assert_close(mine(image, factors), torch.stack(expected), atol=2e-4, rtol=0)
