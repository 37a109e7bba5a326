from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pydicom
import pytest
from scipy.stats import pearsonr

from hounsfield.data.phantom import phantom
from hounsfield.data.phantom.patient import draw_patient
from hounsfield.data.phantom.scan import render
from hounsfield.data.phantom.trunk import LEVELS
from hounsfield.errors import ConfigError, OutputError
from hounsfield.seeding import stream


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "archive"
    phantom(out, patients=4, seed=1, matrix=64)
    return out


def test_equal_seeds_give_equal_files_and_another_seed_other_ones(tmp_path: Path) -> None:
    for name, seed in [("one", 5), ("two", 5), ("three", 6)]:
        phantom(tmp_path / name, patients=1, seed=seed, matrix=32)
    one, two, three = (
        {
            file.relative_to(tmp_path / name).as_posix(): file.read_bytes()
            for file in sorted((tmp_path / name).rglob("*"))
            if file.is_file()
        }
        for name in ("one", "two", "three")
    )
    assert len(one) == 26 + 1
    assert one == two
    assert one.keys() == three.keys()
    assert all(one[name] != three[name] for name in one if name.endswith(".dcm"))


def test_files_are_ct_with_position_spacing_orientation_and_an_intercept(archive: Path) -> None:
    files = sorted((archive / "PHANTOM-0002" / "head").iterdir())
    headers = [pydicom.dcmread(file) for file in files]
    heights = [float(ds.ImagePositionPatient[2]) for ds in headers]
    assert np.allclose(np.diff(heights), 5.0)
    assert {str(ds.SeriesInstanceUID) for ds in headers} == {str(headers[0].SeriesInstanceUID)}
    assert len({str(ds.SOPInstanceUID) for ds in headers}) == len(headers)
    assert headers[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert (headers[0].Modality, headers[0].RescaleIntercept) == ("CT", -1024)
    assert headers[0].InstanceNumber > headers[-1].InstanceNumber  # numbers run against z here


def test_tissues_have_their_hu() -> None:
    """Medians over many patients: at a place that is air, brain, lung or bone in all of them."""
    medians: dict[str, list[float]] = {"outside": [], "brain": [], "lung": [], "bone": []}
    for number in range(6):
        head, trunk = draw_patient(number, seed=0).scans
        image = render(head, 6, stream(0, "test", number), matrix=128).astype(float)
        medians["outside"].append(float(np.median(image[:8, :8])))
        brain = image[40:88, 48:80]
        medians["brain"].append(float(np.median(brain)))
        medians["bone"].append(float(np.quantile(image, 0.99)))
        chest = render(trunk, 9, stream(0, "test", number), matrix=128).astype(float)
        medians["lung"].append(float(np.median(chest[(chest < -600) & (chest > -950)])))
    assert all(abs(value + 1000) < 15 for value in medians["outside"])
    assert all(15 < value < 45 for value in medians["brain"])
    assert all(-880 < value < -720 for value in medians["lung"])
    assert all(300 < value < 1500 for value in medians["bone"])


def test_a_bleed_is_as_bright_as_fresh_blood_where_the_label_says_so() -> None:
    seen = 0
    for number in range(12):
        head = draw_patient(number, seed=3).scans[0]
        if 1 not in head.bleed:
            continue
        lesion = head.parts[-1]
        without = type(head)(**{**vars(head), "parts": head.parts[:-1]})
        for place, label in enumerate(head.bleed):
            pair = [
                render(scan, place, stream(0, "same noise"), matrix=128).astype(float)
                for scan in (head, without)
            ]
            brighter = pair[0] - pair[1]
            if label:
                assert brighter.max() > 10
                seen += 1
            area_mm2 = (brighter > 8).sum() * head.scanner.pixel_mm**2
            assert area_mm2 < 2500
        assert 65 <= lesion.hu <= 80
    assert seen > 10


def test_about_a_fifth_of_the_head_slices_bleed_in_more_than_half_of_the_patients() -> None:
    patients = [draw_patient(number, seed=0) for number in range(300)]
    labels = [label for patient in patients for label in patient.scans[0].bleed]
    assert 0.15 < np.mean([float(label or 0) for label in labels]) < 0.25
    assert 0.5 < np.mean([patient.bleeds for patient in patients]) < 0.7


def test_the_level_of_a_slice_does_not_tell_a_bleed() -> None:
    heads = [draw_patient(number, seed=0).scans[0] for number in range(600)]
    rank = [place for head in heads for place in range(len(head.bleed))]
    label = [float(one or 0) for head in heads for one in head.bleed]
    assert abs(pearsonr(rank, label).statistic) < 0.05
    by_rank = np.array(label).reshape(len(heads), -1).mean(0)
    assert by_rank.max() - by_rank.min() < 0.1


def test_every_patient_has_every_region_and_trunk_slices_have_no_bleed_label(
    archive: Path,
) -> None:
    table = pl.read_csv(archive / "labels.csv")
    for _, rows in table.group_by("patient"):
        assert set(rows["region"]) == {"head", *LEVELS}
    trunk = table.filter(pl.col("region") != "head")
    assert trunk["bleed"].null_count() == len(trunk)
    assert table.filter(pl.col("region") == "head")["bleed"].null_count() == 0
    assert all((archive / file).is_file() for file in table["file"])


def test_splits_are_by_patient_and_deal_patients_with_a_bleed_evenly(tmp_path: Path) -> None:
    labels = phantom(tmp_path / "many", patients=20, seed=0, matrix=32)
    table = pl.read_csv(labels)
    sides = table.group_by("patient").agg(
        pl.col("split").unique(), pl.col("bleed").max().fill_null(0)
    )
    assert all(len(split) == 1 for split in sides["split"])
    counts = Counter(
        (split[0], bleed) for split, bleed in zip(sides["split"], sides["bleed"], strict=True)
    )
    assert all(counts[split, bleed] >= 1 for split in ("train", "val", "test") for bleed in (0, 1))


def test_a_folder_that_exists_is_left_alone_and_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        phantom(tmp_path, patients=1, seed=0)
    with pytest.raises(ConfigError, match="0 patients"):
        phantom(tmp_path / "new", patients=0, seed=0)
    assert list(tmp_path.iterdir()) == []
