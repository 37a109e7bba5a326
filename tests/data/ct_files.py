"""CT files for the tests, written by pydicom alone: what a reader must get right, one at a time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def picture(seed: int = 0, shape: tuple[int, int] = (24, 20)) -> NDArray[np.int16]:
    """Smooth HU from -1000 to 1500, different for every seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    waves = sum(
        rng.normal() * np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y + rng.uniform(0, 6))
        for _ in range(4)
    )
    span = waves - waves.min()
    return np.rint(span / span.max() * 2500 - 1000).astype(np.int16)


def slice_of(
    hu: NDArray[np.int16],
    *,
    z: float = 0.0,
    axes: Sequence[float] = AXIAL,
    series: str = "1.2.3",
    patient: str = "patient-1",
    slope: float = 1.0,
    intercept: float = -1024.0,
    signed: bool = False,
    position: Sequence[float] | None = None,
    **more: object,
) -> Dataset:
    """One CT image whose stored values are `(hu - intercept) / slope`; `more` sets attributes."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.PatientID, ds.PatientName, ds.PatientBirthDate = patient, "Doe^Jane", "19500203"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = f"{series}.1", series
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber = 1
    ds.ImageOrientationPatient = list(axes)
    ds.ImagePositionPatient = [-100.0, -120.0, z] if position is None else list(position)
    ds.PixelSpacing = [0.75, 0.75]
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(signed)
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    stored = np.rint((hu.astype(float) - intercept) / slope)
    ds.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
    for name, value in more.items():
        setattr(ds, name, value)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def enhanced(frames: Sequence[NDArray[np.int16]], heights: Sequence[float]) -> Dataset:
    """An enhanced multi-frame CT whose frames lie at `heights`, an intercept each."""
    ds = slice_of(frames[0])
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    for name in (
        "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "RescaleSlope",
        "RescaleIntercept",
    ):  # fmt: skip
        delattr(ds, name)
    ds.NumberOfFrames = len(frames)
    shared = Dataset()
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = list(AXIAL)
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.8], 2.0
    shared.PlaneOrientationSequence = Items([orientation])
    shared.PixelMeasuresSequence = Items([measures])
    ds.SharedFunctionalGroupsSequence = Items([shared])
    groups, stored = [], []
    for number, (hu, z) in enumerate(zip(frames, heights, strict=True)):
        intercept = -1000 - number
        group, place, transform = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [-100.0, -120.0, z]
        transform.RescaleSlope, transform.RescaleIntercept = 1, intercept
        transform.RescaleType = "HU"
        group.PlanePositionSequence = Items([place])
        group.PixelValueTransformationSequence = Items([transform])
        groups.append(group)
        stored.append((hu.astype(int) - intercept).astype("<u2"))
    ds.PerFrameFunctionalGroupsSequence = Items(groups)
    ds.PixelData = np.stack(stored).tobytes()
    return ds


def as_ct(name: str, **more: object) -> Dataset:
    """One of pydicom's own test files under a CT header, its pixels as they were."""
    file = get_testdata_file(name, download=False)
    ds = dcmread(str(file))
    header = slice_of(np.zeros((1, 1), np.int16), intercept=0.0)
    for element in header:
        if element.tag.group < 0x0028 or "Rescale" in element.keyword:
            ds[element.tag] = element
    ds.PixelSpacing = [1.0, 1.0]
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    for name_, value in more.items():
        setattr(ds, name_, value)
    return ds


def jpeg_lossless(stored: NDArray[np.uint16]) -> bytes:
    """A lossless JPEG of 16-bit values, first-order prediction (ISO/IEC 10918-1 annex H).

    The slow, obvious encoder: every difference's category takes five bits.
    """
    rows, columns = stored.shape
    bits = ""
    for y in range(rows):
        for x in range(columns):
            above = int(stored[y - 1, 0]) if y else 2**15
            before = int(stored[y, x - 1]) if x else above
            difference = (int(stored[y, x]) - before + 2**15) % 2**16 - 2**15
            size = abs(difference).bit_length()
            bits += format(size, "05b")
            if 0 < size < 16:
                value = difference if difference > 0 else difference + 2**size - 1
                bits += format(value, f"0{size}b")
    bits += "1" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    counts = bytes([0, 0, 0, 0, 17, *[0] * 11])
    table = b"\x00" + counts + bytes(range(17))
    frame = b"\x10" + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\x01\x01\x11\x00"
    scan = b"\x01\x01\x00\x01\x00\x00"
    return b"".join(
        [
            b"\xff\xd8",
            *(
                b"\xff" + bytes([marker]) + (len(content) + 2).to_bytes(2, "big") + content
                for marker, content in ((0xC3, frame), (0xC4, table), (0xDA, scan))
            ),
            packed,
            b"\xff\xd9",
        ]
    )


def compressed(ds: Dataset, streams: Sequence[bytes], syntax: UID = JPEGLosslessSV1) -> Dataset:
    """`ds` with the pixels replaced by the codestreams of its frames."""
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([*streams])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return ds
