"""What the recipes promise: a draw per sample, the physics of HU, chance from one generator."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hounsfield.augment import ops
from hounsfield.augment.intensity import Jitter, Windowed
from hounsfield.augment.published import Jittered, eight_bits
from hounsfield.augment.recipe import Recipe, View
from hounsfield.augment.views import RECIPES, recipe, small_size
from hounsfield.data.window import Window, to_unit
from hounsfield.errors import ConfigError

RANDOM = [name for name in RECIPES if name != "plain"]


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 6, size: int = 96, *, seed: int = 9) -> torch.Tensor:
    coarse = torch.randn(batch, 1, size // 8, size // 8, generator=chance(seed)) * 300
    return F.interpolate(coarse, size=size, mode="bilinear").to(torch.int16)


MIXED = torch.tensor([True, False] * 3)
ALL_HU = torch.ones(6, dtype=torch.bool)


@pytest.mark.parametrize("name", RECIPES)
def test_equal_generators_make_equal_views_and_leave_the_global_one_alone(name):
    before = torch.get_rng_state()
    first = recipe(name, size=64)(images(), MIXED, chance(1))
    again = recipe(name, size=64)(images(), MIXED, chance(1))
    other = recipe(name, size=64)(images(), MIXED, chance(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first[0], other[0]) == (name == "plain")


@pytest.mark.parametrize("name", RANDOM)
def test_every_sample_has_a_draw_of_its_own(name):
    same = images(1).expand(6, -1, -1, -1)
    for view in recipe(name, size=64)(same, ALL_HU, chance(3)):
        gaps = torch.cdist(view.flatten(1), view.flatten(1), p=float("inf"))
        assert (gaps[~torch.eye(6, dtype=torch.bool)] > 0.01).all()


@pytest.mark.parametrize("name", RECIPES)
def test_a_sample_does_not_feel_its_neighbours(name):
    here, changed = images(), images(seed=10)
    changed[2] = here[2]
    kinds = ~MIXED
    kinds[2] = MIXED[2]
    one = recipe(name, size=64)(here, MIXED, chance(4))
    two = recipe(name, size=64)(changed, kinds, chance(4))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a[2], b[2], rtol=0, atol=1e-4)
        assert not torch.allclose(a[0], b[0])


@pytest.mark.parametrize("name", RECIPES)
def test_a_mixed_batch_holds_the_views_of_two_pure_ones(name):
    mixed = recipe(name, size=64)(images(), MIXED, chance(5))
    hu = recipe(name, size=64)(images(), ALL_HU, chance(5))
    display = recipe(name, size=64)(images(), ~ALL_HU, chance(5))
    for got, as_hu, as_display in zip(mixed, hu, display, strict=True):
        torch.testing.assert_close(got[MIXED], as_hu[MIXED], rtol=0, atol=1e-4)
        torch.testing.assert_close(got[~MIXED], as_display[~MIXED], rtol=0, atol=1e-4)
        assert not torch.allclose(as_hu, as_display)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("single", [64]),
        ("two_views", [64, 64]),
        ("uneven_views", [64, 64]),
        ("multi_crop", [64] * 2 + [32] * 6),
        ("supervised", [64]),
        ("supervised_sided", [64]),
        ("plain", [64]),
        ("paper_single", [64]),
        ("paper_two_views", [64, 64]),
        ("paper_multi_crop", [64] * 2 + [32] * 6),
    ],
)
def test_views_have_the_sizes_and_channels_asked_for_from_images_of_any_shape(
    name, sizes, channels
):
    oblong = images(4, 96)[:, :, :72]
    views = recipe(name, size=64, channels=channels)(oblong, MIXED[:4], chance(0))
    assert [tuple(view.shape) for view in views] == [(4, channels, size, size) for size in sizes]
    assert all(view.dtype == torch.float32 and view.isfinite().all() for view in views)


def test_small_views_have_96_px_beside_224_and_never_more_than_the_large_ones():
    assert [small_size(size) for size in (224, 128, 64, 32, 16)] == [96, 48, 32, 32, 16]


def test_plain_views_are_the_window_alone():
    kinds = torch.tensor([True, False])
    made = images(2, 64)
    (view,) = recipe("plain", size=64, window=(-100, 200))(made, kinds, chance(0))
    expected = to_unit(made, kinds, Window(-100, 200))
    torch.testing.assert_close(view, (expected - 0.5) / 0.25)


def test_pixels_are_averaged_in_hu_before_a_window_clips_them():
    # Half air, half dense bone: soft tissue's 0 HU to a scanner with coarser pixels, so the lower
    # end of the brain's window; averaged after the window it would be its middle.
    stripes = torch.tensor([-1000, 1000]).repeat(64).repeat(128, 1)[None, None].to(torch.int16)
    kinds = torch.ones(1, dtype=torch.bool)
    (view,) = recipe("plain", size=64, window=(-20, 60))(stripes, kinds, chance(0))
    inner = view[..., 2:-2, 2:-2] * 0.25 + 0.5
    torch.testing.assert_close(inner, torch.full_like(inner, 0.25), rtol=0, atol=1e-3)


def test_noise_is_in_hu_whatever_the_window_and_in_display_shares_for_display_values():
    flat = torch.full((400, 1, 16, 16), 100, dtype=torch.int16)
    kinds = torch.arange(400) % 2 == 0
    for width in (1000.0, 4000.0):
        noisy = Windowed(
            window_hu=(-width / 2, width / 2),
            hu=Jitter(noise=20.0),
            display=Jitter(noise=300.0),
            noise_share=1.0,
        )
        (view,) = Recipe("noisy", (View(16, None, noisy),))(flat, kinds, chance(1))
        deviation = view.std(dim=(1, 2, 3)) * 0.25 * width  # HU, for those that are
        assert 19 < deviation[kinds].max() < 22
        assert deviation[kinds].mean() == pytest.approx(10, rel=0.1)  # uniform from 0 to 20


def test_what_lies_outside_the_image_is_air():
    bright = torch.full((40, 1, 64, 64), 2000, dtype=torch.int16)
    for kinds in (torch.ones(40, dtype=torch.bool), torch.zeros(40, dtype=torch.bool)):
        (view,) = recipe("supervised", size=64)(bright, kinds, chance(2))
        darkest = view.amin(dim=(1, 2, 3)) * 0.25 + 0.5
        assert (darkest < 0.05).sum() > 10  # some turned views show a corner
        assert view.max() > -2


def test_labels_that_tell_left_from_right_have_views_that_do():
    bright_left = torch.full((60, 1, 64, 64), -1000, dtype=torch.int16)
    bright_left[..., :32] = 500
    found = {}
    for name in ("supervised", "supervised_sided"):
        (view,) = recipe(name, size=64)(bright_left, torch.ones(60, dtype=torch.bool), chance(4))
        found[name] = (view[..., :32].mean((1, 2, 3)) > view[..., 32:].mean((1, 2, 3))).sum()
    assert 15 < found["supervised"] < 45
    assert found["supervised_sided"] == 60


def test_the_images_given_stay_as_they_are():
    for dtype in (torch.int16, torch.float32):
        given = images().to(dtype)
        before = given.clone()
        recipe("two_views", size=64)(given, MIXED, chance(0))
        assert torch.equal(given, before)


def test_of_uneven_views_the_first_is_always_blurred_and_the_second_rarely(monkeypatch):
    blur, counts = ops.blur, []
    monkeypatch.setattr(
        ops, "blur", lambda views, sigma: (counts.append(len(views)), blur(views, sigma))[1]
    )
    recipe("uneven_views", size=32)(images(200, 32), torch.ones(200, dtype=torch.bool), chance(0))
    always, rarely = counts
    assert always == 200
    assert 8 < rarely < 35


def test_display_values_vary_less_than_hu():
    # The same ramp over the whole of each one's range, so that only the draws differ.
    ramp = torch.linspace(0, 1, 64).expand(200, 1, 64, 64)
    kinds = torch.ones(200, dtype=torch.bool)
    as_hu = (ramp * 2000 - 1000).to(torch.int16)
    as_display = (ramp * 32767).to(torch.int16)
    strong = recipe("two_views", size=64).views[0].intensity
    spread = [
        Recipe("ramp", (View(64, None, strong),))(made, of, chance(3))[0].mean((1, 2, 3)).std()
        for made, of in ((as_hu, kinds), (as_display, ~kinds))
    ]
    assert 0.02 < spread[1] < 0.8 * spread[0]


# --- the published study's ------------------------------------------------------------------------


def test_slices_are_spread_over_8_bits_as_the_study_did():
    made = images(3, 32).numpy().astype(np.float64)
    low, high = made.min((1, 2, 3), keepdims=True), made.max((1, 2, 3), keepdims=True)
    expected = np.rint((made - low) / (high - low) * 255) / 255
    got = eight_bits(torch.tensor(made), torch.ones(3, dtype=torch.bool))
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_a_slice_of_one_value_is_spread_to_zero():
    flat = torch.full((1, 1, 8, 8), -1000.0)
    assert eight_bits(flat, torch.ones(1, dtype=torch.bool)).eq(0).all()


def test_the_studys_intensities_do_not_depend_on_a_slices_scale():
    made = images()
    doubled = (made.int() * 2 + 100).to(torch.int16)
    one = recipe("paper_multi_crop", size=64)(made, ALL_HU, chance(6))
    two = recipe("paper_multi_crop", size=64)(doubled, ALL_HU, chance(6))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2 / 255 / 0.1907)


def test_brightness_and_contrast_come_in_both_orders():
    made = torch.rand(300, 1, 8, 8, generator=chance(0))
    jitter = Jittered(strength=0.4)
    got = jitter(made, MIXED, chance(7), size=8)
    draw = chance(7)
    torch.rand(300, generator=draw)  # whether
    bright, stark = (0.6 + 0.8 * torch.rand(300, generator=draw) for _ in range(2))
    mean = made.mean((1, 2, 3))
    for i in range(300):
        orders = []
        b, c, image = float(bright[i]), float(stark[i]), made[i]
        first = (image * b).clamp(0, 1)
        orders.append((first.mean() + (first - first.mean()) * c).clamp(0, 1))
        orders.append(((mean[i] + (image - mean[i]) * c).clamp(0, 1) * b).clamp(0, 1))
        assert min(float((got[i] - order).abs().max()) for order in orders) < 1e-5


# --- refusals -------------------------------------------------------------------------------------


def test_an_unknown_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"unknown recipe 'two_view'\. Did you mean 'two_views'"):
        recipe("two_view", size=64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 4}, r"views of 4 px with 1 channels cannot be made; take at least 8 px"),
        ({"size": 64, "channels": 0}, r"with 0 channels cannot be made"),
        ({"size": 64, "window": (80, 0)}, r"window \(80, 0\) HU: its lower end must be below"),
    ],
)
def test_what_no_view_can_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        recipe("plain", **settings)
