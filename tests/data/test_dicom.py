import os
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from ct_files import as_ct, compressed, enhanced, jpeg_lossless, picture, save, slice_of
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from hounsfield.data import archive as archives
from hounsfield.data import series
from hounsfield.data.archive import Entry, walk
from hounsfield.data.readers import dicom, dicom_values, nifti
from hounsfield.data.readers.dicom_headers import HEAD_BYTES, read_headers
from hounsfield.data.refusal import Refusal
from hounsfield.data.series import Header
from hounsfield.data.volume import Volume
from hounsfield.errors import NotForUsError, ReadError
from hounsfield.seeding import stream


def read_all(*sources: Path) -> tuple[list[Volume], list[Refusal]]:
    refusals: list[Refusal] = []
    headers: list[Header] = []
    for entry in walk(sources):
        if isinstance(entry, Refusal):
            refusals.append(entry)
            continue
        try:
            headers += read_headers(entry)
        except NotForUsError as error:
            refusals.append(Refusal(entry.name, "skipped", str(error)))
        except ReadError as error:
            refusals.append(Refusal(entry.name, "refused", str(error)))
    volumes = [
        volume
        for group in series.group(headers)
        for volume in dicom.read(group, refusals.append, lambda _: None)
    ]
    return volumes, refusals


def read_one(ds: Dataset, folder: Path) -> NDArray[np.int16]:
    (volume,), refusals = read_all(save(ds, folder / "one.dcm"))
    assert refusals == []
    return volume.voxels[0]


def reason(ds: Dataset, folder: Path) -> tuple[str, str]:
    volumes, (refusal,) = read_all(save(ds, folder / "one.dcm"))
    assert volumes == []
    return refusal.status, refusal.reason


# ----------------------------------------------------------------------------------------- pixels


def test_slices_are_sorted_by_position_whatever_their_names_and_numbers(tmp_path: Path) -> None:
    heights = [5.0, -10.0, 0.0, -5.0]
    for number, z in enumerate(heights):
        ds = slice_of(picture(int(z) + 50), z=z, InstanceNumber=7 - number)
        save(ds, tmp_path / f"{number}_no_extension")
    (volume,), _ = read_all(tmp_path)
    assert volume.z_mm.tolist() == sorted(heights)
    for place, z in enumerate(sorted(heights)):
        assert np.array_equal(volume.voxels[place], picture(int(z) + 50))
    assert volume.spacing_mm == (5.0, 0.75, 0.75)
    assert volume.units == "hu"


def test_every_slice_has_a_rescale_of_its_own(tmp_path: Path) -> None:
    save(slice_of(picture(1), z=0, slope=2, intercept=-2000), tmp_path / "a")
    save(slice_of(picture(2), z=1, slope=0.5, intercept=-1000.5, signed=True), tmp_path / "b")
    (volume,), _ = read_all(tmp_path)
    assert np.abs(volume.voxels[0] - picture(1)).max() <= 1  # odd HU cannot be stored at slope 2
    assert np.array_equal(volume.voxels[0] % 2, np.zeros_like(volume.voxels[0]))
    assert np.abs(volume.voxels[1].astype(int) - picture(2)).max() <= 1


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_any_byte_order_and_encoding_gives_the_same_hu(
    tmp_path: Path, syntax: pydicom.uid.UID, signed: bool
) -> None:
    ds = slice_of(picture(), signed=signed)
    ds["PixelData"].VR = "OW"
    file = tmp_path / "one.dcm"
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:  # pydicom writes bytes as they are
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(file, ds, enforce_file_format=True)
    (volume,), _ = read_all(file)
    assert np.array_equal(volume.voxels[0], picture())


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_expb.dcm",
    ],
)
def test_losslessly_compressed_pixels_are_those_of_the_plain_file(
    tmp_path: Path, name: str
) -> None:
    """pydicom ships one picture in many transfer syntaxes; the plain one is the oracle."""
    plain = dcmread(str(get_testdata_file("MR_small.dcm", download=False))).pixel_array
    assert np.array_equal(read_one(as_ct(name), tmp_path), plain)


def test_lossy_twelve_bit_jpeg_is_what_its_decoder_says(tmp_path: Path) -> None:
    expected = dcmread(str(get_testdata_file("JPGExtended.dcm", download=False))).pixel_array
    assert np.array_equal(read_one(as_ct("JPGExtended.dcm"), tmp_path), expected)


def test_lossless_jpeg_is_the_picture_that_was_written(tmp_path: Path) -> None:
    hu = picture()
    ds = slice_of(hu)
    stored = (hu.astype(int) + 1024).astype(np.uint16)
    assert np.array_equal(read_one(compressed(ds, [jpeg_lossless(stored)]), tmp_path), hu)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_what_pydicom_compresses_comes_back(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    ds = slice_of(picture(shape=(40, 64)))
    ds.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(read_one(ds, tmp_path), picture(shape=(40, 64)))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("n_bytes", [10, HEAD_BYTES - 1000, HEAD_BYTES, 3 * HEAD_BYTES])
def test_headers_of_any_length_are_read(
    tmp_path: Path, n_bytes: int, syntax: pydicom.uid.UID
) -> None:
    """Of a file the head is read first; what must be known may lie behind it, or be cut by it."""
    ds, inner = slice_of(picture()), Dataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds["PixelData"].VR = "OW"
    inner.add_new(0x00091002, "UN", b"x" * (n_bytes + n_bytes % 2))
    ds.add_new(0x00090010, "LO", "someone")
    ds.add_new(0x00091001, "SQ", [inner, inner])  # before the position, which is in group 0020
    assert np.array_equal(read_one(ds, tmp_path), picture())


def test_the_members_of_an_archive_are_read_without_its_directory_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for number in range(9):
            archive.write(save(slice_of(picture(number), z=number), tmp_path / f"{number}.dcm"))
    opened = []
    parse = zipfile.ZipFile._RealGetContents
    monkeypatch.setattr(
        zipfile.ZipFile, "_RealGetContents", lambda one: opened.append(1) or parse(one)
    )
    (volume,), refusals = read_all(tmp_path / "scans.zip")
    assert (len(volume.voxels), refusals) == (9, [])
    assert len(opened) <= 2  # to look inside, and to read


def test_files_without_preamble_or_meta_are_read(tmp_path: Path) -> None:
    file = tmp_path / "bare"
    ds = slice_of(picture())
    del ds.file_meta
    pydicom.dcmwrite(file, ds, implicit_vr=True, little_endian=True)
    (volume,), refusals = read_all(file)
    assert refusals == []
    assert np.array_equal(volume.voxels[0], picture())


@pytest.mark.parametrize("signed", [False, True])
def test_padding_becomes_air(tmp_path: Path, signed: bool) -> None:
    hu = picture()
    intercept = 0.0 if signed else -1024.0
    ds = slice_of(hu, signed=signed, intercept=intercept)
    stored = np.frombuffer(ds.PixelData, "<i2" if signed else "<u2").reshape(hu.shape).copy()
    stored[:3] = -2000 if signed else 40000
    ds.PixelData = stored.tobytes()
    ds.add_new("PixelPaddingValue", "SS" if signed else "US", -2000 if signed else 40000)
    voxels = read_one(ds, tmp_path)
    assert (voxels[:3] == -1000).all()
    assert np.array_equal(voxels[3:], hu[3:])


def test_a_range_of_padding_and_a_padding_in_the_wrong_representation_become_air(
    tmp_path: Path,
) -> None:
    hu = picture()
    ds = slice_of(hu, signed=True, intercept=0.0)
    stored = np.frombuffer(ds.PixelData, "<i2").reshape(hu.shape).copy()
    stored[0], stored[1], stored[2] = -2000, -1900, -1800
    ds.PixelData = stored.tobytes()
    ds.add_new("PixelPaddingValue", "US", 2**16 - 2000)  # unsigned, though the pixels are signed
    ds.add_new("PixelPaddingRangeLimit", "SS", -1900)
    voxels = read_one(ds, tmp_path)
    assert (voxels[:2] == -1000).all()
    assert (voxels[2] == -1000).all()  # nothing is lighter than air, padding or not
    assert np.array_equal(voxels[3:], hu[3:])


def test_overlays_in_the_spare_bits_do_not_reach_the_hu(tmp_path: Path) -> None:
    hu = picture()
    ds = slice_of(hu, BitsStored=12, HighBit=11)
    stored = np.frombuffer(ds.PixelData, "<u2").copy()
    ds.PixelData = (stored | 0x1000 * (np.arange(stored.size) % 3 == 0)).astype("<u2").tobytes()
    assert np.array_equal(read_one(ds, tmp_path), hu)


def test_monochrome1_is_a_way_to_show_hu_and_changes_none(tmp_path: Path) -> None:
    ds = slice_of(picture(), PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_one(ds, tmp_path), picture())


def test_what_exceeds_int16_is_clipped_not_wrapped(tmp_path: Path) -> None:
    hu = picture()
    ds = slice_of(hu, intercept=0.0, RescaleIntercept=30000.0, signed=True)
    assert read_one(ds, tmp_path).max() == min(int(hu.max()) + 30000, 32767)


# --------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize(
    "axes",
    [
        (1, 0, 0, 0, 1, 0),
        (-1, 0, 0, 0, -1, 0),
        (-1, 0, 0, 0, 1, 0),
        (1, 0, 0, 0, -1, 0),
        (0, 1, 0, 1, 0, 0),
        (0, 1, 0, -1, 0, 0),
        (0, -1, 0, 1, 0, 0),
        (0, -1, 0, -1, 0, 0),
    ],
)
def test_any_axial_orientation_stands_upright(tmp_path: Path, axes: tuple[float, ...]) -> None:
    """A mark towards the patient's left and back is found there, by the slow way of coordinates."""
    hu = np.full((9, 12), -1000, np.int16)
    row, column = np.array(axes[:3], float), np.array(axes[3:], float)
    places = {(y, x): x * row + y * column for y in range(hu.shape[0]) for x in range(hu.shape[1])}
    left_back = max(places, key=lambda at: places[at][0] + places[at][1])
    hu[left_back] = 1000
    voxels = read_one(slice_of(hu, axes=axes), tmp_path)
    assert voxels[-1, -1] == 1000


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SLA"])
def test_a_series_and_the_same_scan_as_nifti_give_the_same_hu(tmp_path: Path, codes: str) -> None:
    """nibabel turns the axes of the one, pydicom writes the other; our readers must agree."""
    hu = np.stack([picture(seed) for seed in range(5)])  # (z, y, x)
    for place, z in enumerate(range(-10, 15, 5)):
        save(slice_of(hu[place], z=float(z), intercept=-1000), tmp_path / "dcm" / f"{9 - place}")
    to_ras = np.diag([-0.75, -0.75, 5.0, 1.0])  # x to the left and y to the back become minus
    to_ras[:3, 3] = 100, 120, -10
    upright = nibabel.Nifti1Image(hu.transpose(2, 1, 0), to_ras)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(to_ras), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(upright.as_reoriented(turn), tmp_path / "scan.nii.gz")
    (scans,), refusals = read_all(tmp_path / "dcm")
    (entry,) = (one for one in walk([tmp_path / "scan.nii.gz"]) if isinstance(one, Entry))
    (scan,) = nifti.read([entry], refusals.append, lambda _: None)
    assert refusals == []
    assert np.array_equal(scans.voxels, hu)
    assert np.array_equal(scan.voxels, hu)
    assert scan.z_mm == pytest.approx(scans.z_mm)
    assert scan.spacing_mm == pytest.approx(scans.spacing_mm)


def test_gaps_are_said_and_copies_are_refused_by_name(tmp_path: Path) -> None:
    for place, z in enumerate([0, 5, 10, 25, 30]):
        save(slice_of(picture(place), z=z), tmp_path / f"{place}.dcm")
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "1.dcm").read_bytes())
    save(slice_of(picture(9), z=25.001), tmp_path / "same_place.dcm")
    (volume,), refusals = read_all(tmp_path)
    assert volume.notes == ("1 gap in z, the widest 15.0 mm after slice 2 (usual distance 5.0 mm)",)
    assert set(refusals) == {
        Refusal("copy.dcm", "duplicate", "the same image as another", "1.dcm"),
        Refusal("same_place.dcm", "duplicate", "at the same position as another", "3.dcm"),
    }


def test_a_broken_copy_does_not_take_the_place_of_the_image(tmp_path: Path) -> None:
    whole = save(slice_of(picture()), tmp_path / "b.dcm").read_bytes()
    stored = (picture().astype(int) + 1024).astype(np.uint16)
    copy = compressed(slice_of(picture()), [jpeg_lossless(stored)[:200]])
    copy.SOPInstanceUID = dcmread(tmp_path / "b.dcm").SOPInstanceUID
    save(copy, tmp_path / "a.dcm")
    (tmp_path / "c.dcm").write_bytes(whole)
    (volume,), refusals = read_all(tmp_path)
    assert np.array_equal(volume.voxels, [picture()])
    assert {(one.file, one.status) for one in refusals} == {
        ("a.dcm", "refused"),
        ("c.dcm", "duplicate"),
    }


def test_a_series_that_passes_twice_over_its_positions_is_two_volumes(tmp_path: Path) -> None:
    for phase in (1, 2):
        for z in (0, 5, 10):
            ds = slice_of(picture(10 * phase + z), z=z, AcquisitionNumber=phase)
            save(ds, tmp_path / f"{phase}_{z}")
    volumes, refusals = read_all(tmp_path)
    assert refusals == []
    assert [len(volume.voxels) for volume in volumes] == [3, 3]
    assert len({volume.series for volume in volumes}) == 2


def test_series_part_by_kernel_spacing_and_orientation(tmp_path: Path) -> None:
    save(slice_of(picture(0), z=0, ConvolutionKernel="SOFT"), tmp_path / "a")
    save(slice_of(picture(1), z=5, ConvolutionKernel="BONE"), tmp_path / "b")
    save(slice_of(picture(2), z=10, PixelSpacing=[0.5, 0.5]), tmp_path / "c")
    volumes, _ = read_all(tmp_path)
    assert len(volumes) == 3


def test_gantry_tilt_is_said_and_reformats_are_skipped(tmp_path: Path) -> None:
    turn = np.radians(20)
    tilted = (1, 0, 0, 0, np.cos(turn), np.sin(turn))
    for place in range(3):
        save(slice_of(picture(place), axes=tilted, z=place * 5.0), tmp_path / "tilt" / str(place))
    (volume,), _ = read_all(tmp_path / "tilt")
    assert volume.notes == ("gantry tilt of 20.0 degrees, left as it is",)
    assert volume.spacing_mm[0] == pytest.approx(5 * np.cos(turn))
    coronal, sagittal = (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
    assert reason(slice_of(picture(), axes=coronal), tmp_path) == (
        "skipped",
        "not axial (coronal or oblique)",
    )
    assert reason(slice_of(picture(), axes=sagittal), tmp_path)[1].startswith("not axial (sagittal")


def test_what_many_slices_share_is_remembered_but_no_sequence_and_no_long_value(
    tmp_path: Path,
) -> None:
    ds = enhanced([picture(0)], [0.0])
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", *["OTHER"] * 60]
    (entry,) = walk([save(ds, tmp_path / "1.dcm")])
    assert isinstance(entry, Entry)
    dicom_values._converted.cache_clear()
    values = dicom_values.Values(dcmread(entry.path))
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ImageType"):
        assert len(values.get(name)) in (1, 63)
        assert dicom_values._converted.cache_info().currsize == 0
    assert values.get("Modality") == "CT"
    assert dicom_values._converted.cache_info().currsize == 1


def test_enhanced_multi_frame_is_a_volume_with_a_rescale_a_frame(tmp_path: Path) -> None:
    heights = [4.0, 0.0, 2.0]
    ds = enhanced([picture(number) for number in range(3)], heights)
    (volume,), refusals = read_all(save(ds, tmp_path / "multi.dcm"))
    assert refusals == []
    assert volume.z_mm.tolist() == [0.0, 2.0, 4.0]
    assert volume.spacing_mm == (2.0, 0.8, 0.8)
    for place, number in enumerate([1, 2, 0]):
        assert np.array_equal(volume.voxels[place], picture(number))
    assert len(set(volume.sources)) == 3


def test_facts_are_codes_and_never_free_text(tmp_path: Path) -> None:
    ds = slice_of(
        picture(),
        Manufacturer="SIEMENS Healthineers for Dr. Jane Doe",
        ConvolutionKernel=["I41s", "3"],
        ContrastBolusAgent="given by Jane Doe",
        PatientSex="F",
        PatientAge="093Y",
        SeriesDescription="Jane Doe head",
    )
    (volume,), _ = read_all(save(ds, tmp_path / "one"))
    facts = volume.facts
    assert (facts.vendor, facts.kernel, facts.contrast) == ("Siemens", "I41s/3", "yes")
    assert (facts.sex, facts.age) == ("F", "090Y")
    assert "Doe" not in repr(facts)


# ---------------------------------------------------------------------------------------- refusal


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"Modality": "MR"}, "skipped", "no CT image (modality MR)"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "skipped", "image type LOCALIZER"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "skipped", "secondary capture"),
        ({"SamplesPerPixel": 3}, "skipped", "a colour picture"),
        ({"ImageOrientationPatient": None}, "refused", "no image orientation"),
        ({"ImagePositionPatient": None}, "refused", "no image position"),
        ({"PixelSpacing": None}, "refused", "no pixel spacing"),
        ({"RescaleIntercept": None}, "refused", "no rescale intercept"),
        ({"RescaleSlope": 0.0}, "refused", None),
        ({"BitsAllocated": 12}, "refused", "12 bits a pixel"),
        ({"NumberOfFrames": 3}, "refused", "several frames without functional groups"),
        ({"RescaleType": "Z_EFF"}, "skipped", "no HU"),
    ],
)
def test_what_is_no_axial_ct_in_hu_is_named(
    tmp_path: Path, change: dict[str, object], status: str, said: str | None
) -> None:
    if said is None:  # a slope of nothing means none was given
        assert read_one(slice_of(picture(), **change), tmp_path).shape == (24, 20)
        return
    got = reason(slice_of(picture(), **change), tmp_path)
    assert got[0] == status
    assert said in got[1]


def test_a_truncated_slice_costs_itself_and_not_its_neighbours(tmp_path: Path) -> None:
    for place in range(4):
        save(slice_of(picture(place), z=place), tmp_path / f"{place}.dcm")
    broken = tmp_path / "2.dcm"
    broken.write_bytes(broken.read_bytes()[:-300])
    (volume,), (refusal,) = read_all(tmp_path)
    assert volume.z_mm.tolist() == [0, 1, 3]
    assert (refusal.file, refusal.status) == ("2.dcm", "refused")
    assert refusal.reason == "its pixels are cut short: 660 of 960 bytes"


def test_a_codestream_that_disagrees_with_its_header_never_reaches_a_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = (picture().astype(int) + 1024).astype(np.uint16)
    ds = compressed(slice_of(picture()), [jpeg_lossless(stored)])
    ds.Rows = 30
    monkeypatch.setattr(dicom, "pixel_array", lambda *_, **__: pytest.fail("decoded"))
    assert "under a header of" in reason(ds, tmp_path)[1]


def test_zips_are_walked_like_folders_and_traversal_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "BOMB_BYTES", 2**20)
    file = save(slice_of(picture()), tmp_path / "one.dcm")
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.write(file, "deep/er/one.dcm")
        archive.writestr("../../evil.dcm", file.read_bytes())
        archive.writestr("/etc/evil.dcm", file.read_bytes())
        archive.writestr("bomb", b"\0" * (2 * 2**20), zipfile.ZIP_DEFLATED)
        for nameless in ("", ".", "./."):
            archive.writestr(zipfile.ZipInfo(nameless), file.read_bytes())
    file.unlink()
    (volume,), refusals = read_all(tmp_path)
    assert volume.files == ("scans.zip/deep/er/one.dcm",)
    assert np.array_equal(volume.voxels[0], picture())
    *told, bomb = sorted(one.reason for one in refusals)
    assert told == [
        *["it has no name in the archive"] * 3,
        *["its name leads out of the archive"] * 2,
    ]
    assert bomb.startswith("unpacks to 2 MiB")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scans.zip"]


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_member_costs_itself_however_it_is_packed(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "scans.zip", "w", method) as archive:
        archive.writestr("a.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
        start = archive.fp.tell()
        archive.writestr("b.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    content = bytearray((tmp_path / "scans.zip").read_bytes())
    content[start + 35 : start + 60] = b"\xff" * 25  # behind the member's own header and name
    (tmp_path / "scans.zip").write_bytes(content)
    sound, damaged = walk([tmp_path])
    assert isinstance(sound, Entry)
    assert isinstance(damaged, Refusal)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_member_that_is_damaged_behind_its_head_is_not_read(tmp_path: Path, method: int) -> None:
    noise = stream(0, "noise").bytes(20_000)  # which no method packs
    with zipfile.ZipFile(tmp_path / "scans.zip", "w", method) as archive:
        archive.writestr("a.png", b"\x89PNG\r\n\x1a\n" + noise)
    content = bytearray((tmp_path / "scans.zip").read_bytes())
    content[6_000:9_000] = b"\xff" * 3_000
    (tmp_path / "scans.zip").write_bytes(content)
    (found,) = walk([tmp_path])
    assert isinstance(found, Entry)
    with pytest.raises(ReadError, match="cannot be read"):
        found.read()


def entry_names(found: Sequence[Entry | Refusal]) -> list[str]:
    return [one.name if isinstance(one, Entry) else one.file for one in found]


def test_folders_that_are_not_looked_into_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return look(path)

    see = os.stat

    def stat(path: Any, **how: Any) -> os.stat_result:
        if str(path).endswith("shut/store.json"):
            raise PermissionError(13, "Permission denied", path)
        return see(path, **how)

    monkeypatch.setattr(os, "scandir", scandir)  # root is let into any folder
    monkeypatch.setattr(os, "stat", stat)
    save(slice_of(picture()), tmp_path / "scans" / "open" / "1.dcm")
    (tmp_path / "scans" / "shut").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "scans" / "link").symlink_to(tmp_path / "elsewhere")
    link, there, shut = walk([tmp_path / "scans"])
    assert isinstance(there, Entry)
    assert there.name == "open/1.dcm"
    assert link == Refusal("link", "refused", "a link to a folder; give the folder as a source")
    assert shut == Refusal("shut", "refused", "a folder that cannot be opened")
    (alone,) = walk([tmp_path / "scans" / "shut"])
    assert alone == replace(shut, file=".")


def test_names_sort_as_people_count(tmp_path: Path) -> None:
    for name in ("s10", "s9", "s1", "t2"):
        save(slice_of(picture()), tmp_path / name)
    assert entry_names(list(walk([tmp_path]))) == ["s1", "s9", "s10", "t2"]
