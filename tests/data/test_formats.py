"""Readers of everything that is no DICOM."""

import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from ct_files import picture
from numpy.typing import NDArray
from PIL import Image

from hounsfield.data.archive import Entry, walk
from hounsfield.data.readers import image, itk, medmnist, nifti
from hounsfield.data.refusal import Announce, Refusal, Refuse
from hounsfield.data.volume import Volume
from hounsfield.units import DISPLAY_MAX

Read = Callable[[Sequence[Entry], Refuse, Announce], Iterator[Volume]]


def read_all(read: Read, source: Path) -> tuple[list[Volume], list[Refusal]]:
    found = list(walk([source]))
    refusals = [one for one in found if isinstance(one, Refusal)]
    entries = [one for one in found if isinstance(one, Entry)]
    volumes = list(read(entries, refusals.append, lambda _: None))
    return volumes, refusals


def refused(read: Read, source: Path) -> str:
    volumes, (refusal,) = read_all(read, source)
    assert volumes == []
    return refusal.reason


def scan(depth: int = 4) -> NDArray[np.int16]:
    """HU `(z, y, x)`, x to the left, y to the back, z to the head."""
    return np.stack([picture(seed, (6, 5)) for seed in range(depth)])


# ------------------------------------------------------------------------------------------ NIfTI

# The affine of an array (x, y, z) with x to the left and y to the back, in NIfTI's world, in
# which x runs to the right and y to the front.
UPRIGHT = np.diag([-0.7, -0.8, 3.0, 1.0])


def nifti_file(
    folder: Path, array: NDArray[Any], affine: NDArray[np.float64], name: str = "s.nii.gz"
) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz"])
def test_nifti_in_any_order_of_axes_becomes_axial_and_upright(tmp_path: Path, name: str) -> None:
    """Every one of the 48 ways to lay out the same scan gives the same volume."""
    array, affine = scan().transpose(2, 1, 0), UPRIGHT.copy()
    affine[:3, 3] = [30, 40, -100]
    original = nibabel.Nifti1Image(array, affine)
    axes = [
        [x, y, z] for x in range(3) for y in range(3) for z in range(3) if {x, y, z} == {0, 1, 2}
    ]
    flips = [[a, b, c] for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    for order in axes if name == "s.nii" else axes[:1]:
        for flip in flips:
            turned = original.as_reoriented(np.array([order, flip]).T)
            nibabel.save(turned, tmp_path / name)
            (volume,), refusals = read_all(nifti.read, tmp_path / name)
            assert refusals == []
            assert np.array_equal(volume.voxels, scan())
            assert volume.spacing_mm == pytest.approx((3.0, 0.8, 0.7))
            assert volume.z_mm.tolist() == pytest.approx([-100, -97, -94, -91])


def test_nifti_slope_and_intercept_make_the_hu(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((5, 6, 4))
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(10, -1000)
    stored = np.arange(120, dtype=np.uint8).reshape(5, 6, 4)
    content = nibabel.Nifti1Image(stored, UPRIGHT, header)
    content.header.set_slope_inter(10, -1000)
    nibabel.save(content, tmp_path / "s.nii")
    raw = bytearray((tmp_path / "s.nii").read_bytes())
    raw[112:120] = np.array([10, -1000], "<f4").tobytes()  # scl_slope, scl_inter
    raw[352:] = stored.tobytes(order="F")
    (tmp_path / "s.nii").write_bytes(raw)
    (volume,), _ = read_all(nifti.read, tmp_path / "s.nii")
    assert np.array_equal(volume.voxels, stored.transpose(2, 1, 0).astype(int) * 10 - 1000)


@pytest.mark.parametrize(
    ("array", "affine", "said"),
    [
        (np.ones((4, 4, 4), np.uint8), UPRIGHT, "no HU: its values are 1 to 1"),
        (np.zeros((4, 4, 4, 3), np.int16), UPRIGHT, "a scan has 3 dimensions"),
        (np.full((4, 4, 4), -1000, np.int16), np.zeros((4, 4)), "maps no volume"),
    ],
)
def test_nifti_that_is_no_scan_is_named(
    tmp_path: Path, array: NDArray[Any], affine: NDArray[np.float64], said: str
) -> None:
    file = nifti_file(tmp_path, array, np.eye(4), "s.nii")
    raw = bytearray(file.read_bytes())
    if not affine.any():
        raw[252:256] = np.array([0, 2], "<i2").tobytes()  # qform none, sform aligned
        raw[280:328] = bytes(48)
    file.write_bytes(raw)
    assert said in refused(nifti.read, file)


def test_oblique_nifti_is_skipped(tmp_path: Path) -> None:
    half = np.sqrt(0.5)
    affine = UPRIGHT @ np.array(
        [[1, 0, 0, 0], [0, half, -half, 0], [0, half, half, 0], [0, 0, 0, 1.0]]
    )
    affine = np.diag([1, 1, 0.8 / 3, 1]) @ affine
    file = nifti_file(tmp_path, scan().transpose(2, 1, 0), affine)
    assert "oblique" in refused(nifti.read, file)


def test_a_nifti_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    file = nifti_file(tmp_path, scan().transpose(2, 1, 0), UPRIGHT, "s.nii")
    raw = bytearray(file.read_bytes())
    raw[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()
    file.unlink()
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(bytes(raw) + bytes(10**6)))
    assert "larger than any CT" in refused(nifti.read, tmp_path)


def test_a_cut_nifti_is_refused(tmp_path: Path) -> None:
    file = nifti_file(tmp_path, scan().transpose(2, 1, 0), UPRIGHT)
    file.write_bytes(file.read_bytes()[:-20])
    assert "cut short" in refused(nifti.read, file)


# --------------------------------------------------------------------------------------- pictures


GREY_OR_COLOUR = ("L", "RGB", "RGBA", "P", "1", "I;16")
MODES = [(kind, mode) for kind in ("PNG", "TIFF") for mode in GREY_OR_COLOUR]


@pytest.mark.parametrize(("kind", "mode"), [*MODES, ("PNG", "LA")])  # Pillow writes no TIFF of LA
def test_every_mode_spreads_black_to_white_over_the_display_range(
    tmp_path: Path, kind: str, mode: str
) -> None:
    ramp = np.zeros((8, 8), np.uint8)
    ramp[:, 4:] = 255
    if mode == "I;16":
        source = Image.fromarray(ramp.astype(np.uint16) * 257)
    else:
        source = Image.fromarray(ramp).convert(mode)
    source.save(tmp_path / "picture", kind)
    (volume,), refusals = read_all(image.read, tmp_path)
    assert refusals == []
    assert volume.units == "display"
    assert np.array_equal(volume.voxels[0], np.where(ramp > 0, DISPLAY_MAX, 0))


def test_sixteen_bits_keep_their_resolution(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(values).save(tmp_path / "p.png")
    (volume,), _ = read_all(image.read, tmp_path)
    assert np.array_equal(volume.voxels[0], np.rint(values / 65535 * DISPLAY_MAX))


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 4), 255, np.uint8)
    pixels[:2, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "p.png")
    (volume,), _ = read_all(image.read, tmp_path)
    assert volume.voxels[0, 0, 0] == 0
    assert volume.voxels[0, 3, 3] == DISPLAY_MAX


def test_pages_and_pictures_of_several_sizes_all_go_in(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 20)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    Image.fromarray(np.full((5, 4), 30, np.uint8)).save(tmp_path / "b.png")
    volumes, refusals = read_all(image.read, tmp_path)
    assert refusals == []
    assert [volume.voxels.shape for volume in volumes] == [(2, 4, 4), (1, 5, 4)]


def test_pictures_of_unknown_scale_or_broken_are_refused_alone(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) - 25])
    (volume,), refusals = read_all(image.read, tmp_path)
    assert volume.files == ("good.png",)
    reasons = {one.file: one.reason for one in refusals}
    assert set(reasons) == {"float.tiff", "cut.png"}
    assert "unknown scale" in reasons["float.tiff"]


# --------------------------------------------------------------------------------------- MedMNIST


def npz(folder: Path, **arrays: NDArray[Any]) -> Path:
    np.savez_compressed(folder / "organ.npz", **arrays)
    return folder / "organ.npz"


def test_medmnist_brings_its_split_and_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = {"train": 3, "val": 1, "test": 2}
    arrays = {
        f"{split}_images": rng.integers(0, 256, (n, 7, 7), np.uint8) for split, n in parts.items()
    }
    labels = {f"{split}_labels": np.arange(n)[:, None] for split, n in parts.items()}
    volumes, refusals = read_all(medmnist.read, npz(tmp_path, **arrays, **labels))
    assert refusals == []
    assert [volume.split for volume in volumes] == ["train"] * 3 + ["val"] + ["test"] * 2
    assert [volume.labels["label"] for volume in volumes] == [0, 1, 2, 0, 0, 1]
    assert len({volume.patient for volume in volumes}) == 6
    assert np.array_equal(
        volumes[1].voxels[0], np.rint(arrays["train_images"][1] / 255 * DISPLAY_MAX)
    )
    assert all(volume.units == "display" for volume in volumes)
    assert [len(volume.notes) for volume in volumes] == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "it has no train_images"),
        ({"train_images": np.zeros((2, 4, 4), np.float32)}, "of type float32"),
        ({"train_images": np.zeros((2, 4, 4, 4), np.uint8)}, "no axial CT slices"),
        (
            {"train_images": np.zeros((2, 4, 4), np.uint8), "train_labels": np.zeros((3, 1), int)},
            "train_labels does not fit",
        ),
        ({"train_images": np.array([[{}]])}, "of type object"),
    ],
)
def test_other_npz_files_are_named_and_never_unpickled(
    tmp_path: Path, arrays: dict[str, NDArray[Any]], said: str
) -> None:
    assert said in refused(medmnist.read, npz(tmp_path, **arrays))


# --------------------------------------------------------------------------- NRRD and MetaImage


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("order", ["LPS", "RAS", "PSL"])
def test_nrrd_and_metaimage_in_any_order_become_axial(
    tmp_path: Path, suffix: str, order: str
) -> None:
    sitk = pytest.importorskip("SimpleITK")
    content = sitk.GetImageFromArray(scan())
    content.SetSpacing((0.7, 0.8, 3.0))
    content.SetOrigin((1.0, 2.0, -50.0))
    sitk.WriteImage(sitk.DICOMOrient(content, order), str(tmp_path / f"s{suffix}"))
    (volume,), refusals = read_all(itk.read, tmp_path)
    assert refusals == []
    assert np.array_equal(volume.voxels, scan())
    assert volume.spacing_mm == pytest.approx((3.0, 0.8, 0.7))
    assert volume.z_mm.tolist() == pytest.approx([-50, -47, -44, -41])


def test_a_header_that_points_to_another_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    (tmp_path / "s.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\n"
        "ElementDataFile = /etc/hostname\n"
    )
    (tmp_path / "s.nhdr").write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
        "data file: /etc/hostname\n\n"
    )
    _, refusals = read_all(itk.read, tmp_path)
    assert len(refusals) == 2
    assert all("in a file of their own" in one.reason for one in refusals)


def test_text_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(io.BytesIO(b"ObjectivE").getvalue())
    (refusal,) = list(walk([tmp_path]))
    assert isinstance(refusal, Refusal)
    assert refusal.status == "skipped"
