"""Real scans through our readers; collected only where they are (see tests/conftest.py)."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from hounsfield.cli import app
from hounsfield.data.archive import Entry, walk
from hounsfield.data.readers import dicom, nifti
from hounsfield.data.readers.dicom_headers import read_headers
from hounsfield.data.refusal import Refusal
from hounsfield.data.series import group
from hounsfield.data.store import Store
from hounsfield.data.volume import Volume

CT = Path(os.environ.get("CT", Path(__file__).parents[2] / ".." / "shared" / "ct")).resolve()


def entries(*sources: Path) -> list[Entry]:
    return [one for one in walk(sources) if isinstance(one, Entry)]


def read_dicom(folder: Path) -> list[Volume]:
    refusals: list[Refusal] = []
    headers = [header for entry in entries(folder) for header in read_headers(entry)]
    volumes = [
        volume
        for slices in group(headers)
        for volume in dicom.read(slices, refusals.append, lambda _: None)
    ]
    assert refusals == []
    return volumes


def ingest(*sources: Path, out: Path, size: int) -> Store:
    told = CliRunner().invoke(
        app, ["ingest", *map(str, sources), "--out", str(out), f"--size={size}", "--keep-ids"]
    )
    assert told.exit_code == 0, told.output
    return Store.open(out)


@pytest.mark.parametrize("patient", ["STS_001", "STS_004"])
def test_a_scan_as_dicom_and_as_nifti_is_the_same_voxel_for_voxel(patient: str) -> None:
    (slices,) = read_dicom(CT / "sts" / "dicom" / patient)
    (scan,) = nifti.read(
        entries(CT / "sts" / "nifti" / f"{patient}.nii.gz"), pytest.fail, lambda _: None
    )
    assert slices.voxels.shape == scan.voxels.shape
    assert np.array_equal(slices.voxels, scan.voxels)
    assert scan.spacing_mm == pytest.approx(slices.spacing_mm, rel=1e-3)


def test_the_same_scans_as_dicom_and_as_nifti_are_the_same_in_stores(tmp_path: Path) -> None:
    patients = ("STS_001", "STS_004")
    sources = [CT / "sts" / "dicom" / patient for patient in patients]
    one = ingest(*sources, out=tmp_path / "dicom", size=64)
    two = ingest(CT / "sts" / "nifti", out=tmp_path / "nifti", size=64)
    assert two.index["patient"].unique().sort().to_list() == list(patients)
    for store in (one, two):
        assert store.is_hu.all()
    rows = [store.index.sort("patient", "z")["slice"].to_numpy() for store in (one, two)]
    off = one.read(rows[0]).astype(int) - two.read(rows[1])
    assert np.abs(off).max() <= 1  # a spacing that differs in its last digit moves an average


def test_of_lidc_and_lung_exactly_the_truncated_file_is_refused(tmp_path: Path) -> None:
    store = ingest(CT / "lidc", CT / "lung", out=tmp_path / "store", size=32)
    refused = pl.read_csv(tmp_path / "store" / "refused.csv").filter(pl.col("status") == "refused")
    assert [Path(file).name for file in refused["file"]] == ["1-084.dcm"]
    assert "cut short" in refused["reason"][0]
    assert len(store) == sum(1 for _ in (CT / "lidc").rglob("*.dcm")) - 1 + 64 + 30


@pytest.mark.timeout(1800)
def test_all_slices_of_sts_go_in(tmp_path: Path) -> None:
    store = ingest(CT / "sts" / "dicom", out=tmp_path / "store", size=16)
    assert (len(store), store.facts.patients) == (3349, 51)
    assert store.facts.flow["refused"] == 0
