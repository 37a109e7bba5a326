"""Bodies with a lesion that can be seen: a labelled store, new scans, and a classifier of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from hounsfield.classify.finetune import FinetuneConfig, Finetuned, finetune
from hounsfield.data.store_writer import write_store
from hounsfield.study.config import Budget

SIZE, SLICES, PATIENTS = 32, 6, 24


def body(patient: int, *, seed: int) -> tuple[NDArray[np.int16], list[int]]:
    """Slices in HU and their labels; every third patient has a bright disc on half of them."""
    chance = np.random.default_rng([seed, patient])
    images = chance.normal(40, 10, size=(SLICES, SIZE, SIZE))
    labels = [int(patient % 3 == 0 and z < SLICES // 2) for z in range(SLICES)]
    y, x = np.mgrid[:SIZE, :SIZE]
    for image, label in zip(images, labels, strict=True):
        cy, cx = chance.integers(8, 24, size=2)
        image[(y - cy) ** 2 + (x - cx) ** 2 < 30] += 300 * label
    return images.astype(np.int16), labels


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 patients, of whom four are test patients; pixels of 1.5 mm."""
    bodies = [body(patient, seed=1) for patient in range(PATIENTS)]
    rows = [
        {
            "patient": f"p{patient:02d}",
            "series": f"s{patient:02d}",
            "z": z,
            "spacing_y_mm": 1.5,
            "spacing_x_mm": 1.5,
            "split": "test" if patient in (0, 1, 3, 4) else "train",
            "lesion": label,
            "kind": "sick" if patient % 3 == 0 else "well",
        }
        for patient, (_, labels) in enumerate(bodies)
        for z, label in enumerate(labels)
    ]
    images = np.concatenate([images for images, _ in bodies])
    place = tmp_path_factory.mktemp("store") / "ct"
    return write_store(place, images, pl.DataFrame(rows)).path


@pytest.fixture(scope="session")
def config(store: Path) -> Callable[..., FinetuneConfig]:
    """A maker of small configurations over the store; keywords replace settings."""

    def make(**changes: Any) -> FinetuneConfig:
        values: dict[str, Any] = {
            "weights": "scratch",
            "backbone": "resnet10_tiny",
            "store": str(store),
            "task": "lesion",
            "window": (-100, 400),
            "val_share": 0.5,
            "budget": Budget(steps=60, batch=16, lr=3e-3, looks=2),
            "device": "cpu",
        }
        return FinetuneConfig.model_validate(values | changes)

    return make


@pytest.fixture(scope="session")
def classifier(
    config: Callable[..., FinetuneConfig], tmp_path_factory: pytest.TempPathFactory
) -> Finetuned:
    return finetune(config(), tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def scan(tmp_path: Path) -> Callable[..., Path]:
    """A maker of a DICOM series of a new patient below `tmp_path / "scans"`."""

    def make(patient: int, *, spacing_mm: float = 1.5) -> Path:
        images, _ = body(patient, seed=2)
        folder = tmp_path / "scans" / f"new{patient:02d}"
        folder.mkdir(parents=True)
        for z, image in enumerate(images):
            name = folder / f"{z:03d}.dcm"
            _dicom(image, f"new{patient:02d}", z, spacing_mm).save_as(
                name, enforce_file_format=True
            )
        return folder

    return make


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[str], Path]:
    """A maker of a PNG below `tmp_path / "scans"`."""

    def make(name: str) -> Path:
        (tmp_path / "scans").mkdir(exist_ok=True)
        path = tmp_path / "scans" / name
        pixels = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return make


def _dicom(image: NDArray[np.int16], patient: str, z: int, spacing_mm: float) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[patient, str(z)])
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.PatientID, ds.Modality, ds.ImageType = patient, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[patient])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[patient, "series"])
    ds.InstanceNumber, ds.SliceThickness = z + 1, "5.0"
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [0, 0, 5.0 * z]
    ds.PixelSpacing = [spacing_mm, spacing_mm]
    ds.Rows, ds.Columns = image.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "HU"
    ds.PixelData = image.astype("<i2").tobytes()
    return ds
