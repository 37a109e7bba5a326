import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hounsfield.data.resample import Shape, area_weights, to_shape
from hounsfield.data.volume import Units, Volume
from hounsfield.errors import ConfigError


def volume(
    voxels: NDArray[np.int16], *, units: Units = "hu", pixel_mm: tuple[float, float] = (1.0, 1.0)
) -> Volume:
    count = len(voxels)
    return Volume(
        voxels=voxels, units=units, spacing_mm=(5.0, *pixel_mm), z_mm=np.arange(count) * 5.0,
        patient="p", study="", series="s", files=("f",) * count, sources=("x",) * count,
        numbers=tuple(range(count)),
    )  # fmt: skip


def test_whole_factors_are_block_means() -> None:
    voxels = np.random.default_rng(0).integers(-1000, 1500, (3, 24, 24)).astype(np.int16)
    images, spacing_mm = to_shape(volume(voxels), Shape(8))
    blocks = voxels.reshape(3, 8, 3, 8, 3).astype(float).mean((2, 4))
    assert np.abs(images - blocks).max() <= 0.501
    assert spacing_mm == (3.0, 3.0)


@given(n_in=st.integers(1, 60), n_out=st.integers(1, 60))
def test_weights_share_out_every_input_pixel_completely(n_in: int, n_out: int) -> None:
    step = n_in / n_out
    weights = area_weights(n_in, n_out, middle=n_in / 2, step=step).astype(float)
    assert np.allclose(weights.sum(1), 1, atol=1e-4)
    assert np.allclose(weights.sum(0) * step, 1, atol=1e-4)


def test_oblong_images_are_padded_with_air_or_black_and_keep_their_proportions() -> None:
    tall = np.full((1, 24, 12), 40, np.int16)
    images, _ = to_shape(volume(tall), Shape(8))
    assert (images[0, :, 2:6] == 40).all()
    assert (images[0, :, [0, 1, 6, 7]] == -1000).all()
    shown, _ = to_shape(volume(tall, units="display"), Shape(8))
    assert (shown[0, :, [0, 1, 6, 7]] == 0).all()


def test_pixels_that_are_not_square_become_square() -> None:
    wide = np.full((1, 10, 10), 40, np.int16)  # 10 mm high, 20 mm wide
    images, spacing_mm = to_shape(volume(wide, pixel_mm=(1.0, 2.0)), Shape(10))
    assert spacing_mm == pytest.approx((2.0, 2.0))
    assert (images[0, 3:7] == 40).all()
    assert (images[0, :2] == -1000).all()


def test_a_fixed_spacing_crops_or_pads_around_the_middle() -> None:
    voxels = np.full((1, 20, 20), -1000, np.int16)
    voxels[0, 8:12, 8:12] = 100
    near, spacing_mm = to_shape(volume(voxels, pixel_mm=(0.5, 0.5)), Shape(8, spacing_mm=0.5))
    assert spacing_mm == (0.5, 0.5)
    assert (near[0, 2:6, 2:6] == 100).all()
    far, _ = to_shape(volume(voxels, pixel_mm=(0.5, 0.5)), Shape(16, spacing_mm=1.0))
    assert (far == 100).sum() == 4


def test_the_body_is_cut_out_of_air_and_off_its_table() -> None:
    voxels = np.full((3, 128, 128), -1000, np.int16)
    voxels[:, 30:70, 40:90] = 40  # the body
    voxels[:, 100:103, :] = 200  # the table
    images, _ = to_shape(volume(voxels), Shape(32, crop="body"))
    assert (images > 0).mean() > 0.6
    assert (images < 150).all()
    empty = np.full((1, 64, 64), -1000, np.int16)
    assert (to_shape(volume(empty), Shape(32, crop="body"))[0] == -1000).all()


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"size": 4}, "a size of 4 px is not allowed; give 8 to 2048"),
        ({"size": 64, "spacing_mm": 0.0}, "a spacing of 0.0 mm"),
        ({"size": 64, "crop": "bodies"}, "Did you mean 'body'"),
    ],
)
def test_shapes_that_no_store_has_are_refused(shape: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Shape(**shape)
