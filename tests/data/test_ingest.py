import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import polars as pl
import pydicom
import pytest
from ct_files import picture, save, slice_of
from deadly import convert_or_die, convert_some
from PIL import Image
from typer.testing import CliRunner

from hounsfield.cli import app
from hounsfield.data import assemble as assemble_module
from hounsfield.data import ingest as ingest_module
from hounsfield.data.archive import Entry, walk
from hounsfield.data.assemble import assemble
from hounsfield.data.convert import Job, Unit
from hounsfield.data.info import describe, flow_lines, lines, write_montage
from hounsfield.data.ingest import ingest, slices_of, units_of
from hounsfield.data.keys import Keys
from hounsfield.data.phantom import phantom
from hounsfield.data.readers.dicom_headers import read_headers
from hounsfield.data.resample import Shape
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.errors import ConfigError, DiskError, InputError, LabelError, LeakError, OutputError
from hounsfield.lock import held


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "archive"
    phantom(out, patients=3, seed=0, matrix=32)
    return out


@pytest.fixture(autouse=True)
def own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_every_slice_goes_in_with_its_own_hu_place_and_labels(
    archive: Path, tmp_path: Path
) -> None:
    """Against pydicom, slice by slice, at the scans' own matrix."""
    flow = ingest(
        [archive], tmp_path / "store", labels=archive / "labels.csv", size=32, keep_ids=True
    )
    store = Store.open(tmp_path / "store")
    store.verify()
    assert (flow.read, flow.refused, flow.slices, flow.patients) == (78, 0, 78, 3)
    truth = pl.read_csv(archive / "labels.csv").sort("patient", "series", "z_mm")
    ours = store.index.sort("patient", "series", "z_mm")
    for name in ("patient", "series", "bleed", "region", "split"):
        assert ours[name].to_list() == truth[name].to_list()
    images = store.read(ours["slice"].to_numpy())
    for image, row in zip(images, truth.rows(named=True), strict=True):
        ds = pydicom.dcmread(archive / row["file"])
        expected = ds.pixel_array.astype(int) * int(ds.RescaleSlope) + int(ds.RescaleIntercept)
        assert np.array_equal(image, expected)
    assert store.is_hu.all()
    heads = store.index.filter(pl.col("region") == "head").sort("patient", "z")
    assert heads["z"].to_list() == list(range(14)) * 3


def test_two_workers_write_the_very_store_of_one(archive: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        ingest([archive], tmp_path / str(workers), size=32, workers=workers)
    assert Store.open(tmp_path / "1").hash == Store.open(tmp_path / "2").hash


def test_identities_are_keyed_and_nothing_of_a_name_is_in_the_store(
    archive: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        ingest([archive / "PHANTOM-0001"], tmp_path / name, size=32)
    ingest([archive / "PHANTOM-0001"], tmp_path / "other", size=32, key=tmp_path / "another.key")
    one, two, other = (
        Store.open(tmp_path / name).index["patient"].unique() for name in ("one", "two", "other")
    )
    assert one.to_list() == two.to_list() != other.to_list()
    assert (tmp_path / "config" / "hounsfield" / "key").stat().st_mode & 0o077 == 0
    for file in (tmp_path / "one").rglob("*"):
        if file.is_file():
            assert b"PHANTOM" not in file.read_bytes()
            assert b"Phantom^" not in file.read_bytes()


def test_the_same_archive_again_adds_nothing_and_a_new_patient_is_added(
    archive: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    shutil.copytree(archive / "PHANTOM-0000", first / "PHANTOM-0000")
    ingest([first], tmp_path / "store", size=32)
    before = Store.open(tmp_path / "store")
    with pytest.raises(OutputError, match="--append"):
        ingest([first], tmp_path / "store", size=32)
    again = ingest([first], tmp_path / "store", size=32, append=True)
    assert (again.new, again.duplicate) == (0, 26)
    assert Store.open(tmp_path / "store").hash == before.hash
    more = ingest([archive], tmp_path / "store", size=32, append=True)
    after = Store.open(tmp_path / "store")
    assert (more.new, len(after)) == (52, 78)
    assert after.index["patient"].n_unique() == 3
    assert np.array_equal(after.read(np.arange(26)), before.read(np.arange(26)))
    assert not list(tmp_path.glob(".store*"))


def test_an_addition_that_waits_for_another_adds_to_what_that_has_made(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "store"
    ingest([archive / "PHANTOM-0000"], out, size=32)

    @contextmanager
    def held_after_another(folder: Path) -> Iterator[None]:
        monkeypatch.setattr(ingest_module, "held", held)
        ingest([archive / "PHANTOM-0001"], out, size=32, append=True)
        with held(folder):
            yield

    monkeypatch.setattr(ingest_module, "held", held_after_another)
    flow = ingest([archive / "PHANTOM-0002"], out, size=32, append=True)
    assert (flow.new, flow.slices, flow.patients) == (26, 78, 3)
    assert len(Store.open(out)) == 78


def test_an_addition_continues_a_volume_and_merges_no_two(tmp_path: Path) -> None:
    def scan(folder: str, kernel: str, heights: Sequence[float]) -> Path:
        for z in heights:
            ds = slice_of(picture(int(z)), z=z, ConvolutionKernel=kernel)
            save(ds, tmp_path / folder / f"{z}.dcm")
        return tmp_path / folder

    out = tmp_path / "store"
    ingest([scan("first", "B30f", (0.0, 2.0))], out, size=16, keep_ids=True)
    for source in (
        scan("goes_on", "B30f", (4.0, 6.0)),
        scan("other", "B70f", (8.0, 10.0)),
        scan("second_pass", "B30f", (0.0, 2.0)),
    ):
        ingest([source], out, size=16, keep_ids=True, append=True)
    found = Store.open(out).index.select("series", "z", "z_mm", "kernel").sort("series", "z")
    assert found.rows() == [
        *(("1.2.3", z, 2.0 * z, "B30f") for z in range(4)),
        *(("1.2.3#2", z, 8 + 2.0 * z, "B70f") for z in range(2)),
        *(("1.2.3#3", z, 2.0 * z, "B30f") for z in range(2)),
    ]


@pytest.mark.parametrize("by", ["patient", "series"])
def test_labels_of_whole_patients_or_series_come_with_the_hint_to_judge_by_them(
    archive: Path, tmp_path: Path, by: str
) -> None:
    told = pl.read_csv(archive / "labels.csv").group_by(by).agg(pl.col("bleed").max())
    told.write_csv(tmp_path / "labels.csv")
    for labels, hinted in ((tmp_path / "labels.csv", True), (archive / "labels.csv", False)):
        flow = ingest([archive], tmp_path / f"{hinted}", labels=labels, size=32)
        said = "\n".join(flow_lines(flow))
        assert (f"every slice of a {by} bears the label" in said) is hinted
        assert (f'level = "{by}"' in said) is hinted


def test_labels_that_match_nothing_end_before_anything_is_written(
    archive: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text("file,bleed\nelsewhere/1.dcm,1\n")
    with pytest.raises(LabelError, match=r"matches no file: it names files like aaaaaaaaa/0\.aaa"):
        ingest([archive], tmp_path / "store", labels=tmp_path / "labels.csv", size=32)
    assert not (tmp_path / "store").exists()


def test_a_patient_in_train_and_test_is_refused(archive: Path, tmp_path: Path) -> None:
    text = (archive / "labels.csv").read_text().splitlines()
    torn = [
        line.rsplit(",", 1)[0] + (",test" if number % 2 else ",train")
        for number, line in enumerate(text[1:])
    ]
    (tmp_path / "labels.csv").write_text("\n".join([text[0], *torn]))
    with pytest.raises(LeakError, match=r"3 patients in two splits.* of rows 1, 2 in"):
        ingest([archive], tmp_path / "store", labels=tmp_path / "labels.csv", size=32)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("table", "error", "said"),
    [
        ("patient,bleed\nPHANTOM-7777,1\n", LabelError, "matches no slice by patient"),
        ("series,z_mm,bleed\n1.2.3,5.0,1\n", LabelError, "matches no slice by series"),
        ("patient,z_mm,bleed\nPHANTOM-0000,9e9,1\n", LabelError, "matches no slice by patient"),
        (
            "file,split\nPHANTOM-0000/head/001.dcm,train\nPHANTOM-0000/head/002.dcm,test\n",
            LeakError,
            "1 patient in two splits",
        ),
    ],
)
def test_labels_that_do_not_fit_the_headers_end_before_a_pixel_is_read(
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    table: str,
    error: type[InputError],
    said: str,
) -> None:
    monkeypatch.setattr(ingest_module, "convert", convert_some)
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(error, match=said):
        ingest([archive], tmp_path / "out" / "store", labels=tmp_path / "labels.csv", size=32)
    assert not (tmp_path / "out").exists()  # no store, no mark of a conversion, no staging


def test_a_disk_without_room_is_said_before_a_pixel_is_read(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "convert", convert_some)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 2**18))
    with pytest.raises(DiskError, match=r"store needs about 0 MiB and its disk has 0 MiB free"):
        ingest([archive], tmp_path / "out" / "store", size=32)
    with pytest.raises(DiskError, match="needs about 35 MiB and its disk has 0 MiB free"):
        phantom(tmp_path / "out" / "phantom", patients=40, seed=0)
    assert not (tmp_path / "out").exists()


def test_names_of_files_are_beside_the_key_and_in_the_store_only_with_the_identities(
    archive: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source" / "Doe_Jane"
    shutil.copytree(archive / "PHANTOM-0000" / "head", source)
    shutil.copy(source / "001.dcm", source / "again.dcm")
    (source / "letter.txt").write_text("Dear Mrs Doe")
    expected = [
        ("Doe_Jane/again.dcm", "duplicate", "the same image as another", "Doe_Jane/001.dcm"),
        ("Doe_Jane/letter.txt", "skipped", "no image that is read here", ""),
    ]
    kept = ingest([source.parent], tmp_path / "kept", size=32, keep_ids=True)
    assert kept.listing == tmp_path / "kept" / "refused.csv"
    assert pl.read_csv(kept.listing).rows() == expected
    flow = ingest([source.parent], tmp_path / "store", size=32)
    assert (flow.read, flow.duplicate, flow.skipped) == (14, 1, 1)
    for file in (tmp_path / "store").rglob("*.*"):
        assert b"Doe" not in file.read_bytes()
        assert b"letter" not in file.read_bytes()
    named = pl.read_csv(flow.listing)
    assert not flow.listing.is_relative_to(tmp_path / "store")
    assert flow.listing.parent.stat().st_mode & 0o077 == 0
    assert named["name"].to_list() == [row[0] for row in expected]
    stored = pl.read_csv(tmp_path / "store" / "refused.csv")
    assert stored.rows() == named.drop("name").rows()
    assert stored["file"].str.contains("^[0-9a-f]{16}$").all()


def test_sources_without_a_slice_say_why(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "notes.txt").write_text("no scan here")
    with pytest.raises(InputError, match="no slice could be read: 1 x no image"):
        ingest([tmp_path / "source"], tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_file_that_kills_its_reader_costs_itself_alone(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "convert", convert_or_die)
    source = archive / "PHANTOM-0002"
    flow = ingest([source], tmp_path / "store", size=32, workers=2)
    (refusal,) = flow.refusals
    assert (refusal.file, refusal.status) == ("trunk/005.dcm", "refused")
    assert refusal.reason == "its reader died (exit code 139)"
    assert (flow.read, flow.slices) == (25, 25)
    assert pl.read_csv(flow.listing)["name"].to_list() == ["trunk/005.dcm"]


def test_an_interrupted_ingest_goes_on_and_gives_the_same_store(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest([archive], tmp_path / "whole", size=32)
    monkeypatch.setattr(ingest_module, "convert", convert_some)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest_module, "assemble", stop)
        with pytest.raises(KeyboardInterrupt):
            ingest([archive / "PHANTOM-0000"], tmp_path / "store", size=32)
    assert not (tmp_path / "store").exists()
    marks = len(list((tmp_path / "marks").iterdir()))
    assert marks == 2
    ingest([archive], tmp_path / "store", size=32)
    assert len(list((tmp_path / "marks").iterdir())) == 6  # a file's part does not depend on others
    assert Store.open(tmp_path / "store").hash == Store.open(tmp_path / "whole").hash
    assert not list(tmp_path.glob(".store*"))


def test_an_ingest_killed_once_its_store_was_there_is_ended_by_the_same_command(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, key = tmp_path / "source", tmp_path / "store", tmp_path / "keys" / "key"
    shutil.copytree(archive / "PHANTOM-0000", source)
    (source / "notes.txt").write_text("no scan here")

    def stop_after_assembly(*given: Any, **more: Any) -> None:
        assemble(*given, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest_module, "assemble", stop_after_assembly)
        with pytest.raises(KeyboardInterrupt):
            ingest([source], out, size=32, key=key)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert before
    flow = ingest([source], out, size=32, key=key)
    assert "notes.txt" in flow.listing.read_text()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob(".store*"))
    with pytest.raises(OutputError, match="--append"):
        ingest([source], out, size=32, key=key)


def test_a_part_that_a_dead_machine_has_emptied_is_made_again_and_room_asked_for_it_alone(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = archive / "PHANTOM-0000", tmp_path / "store"
    ingest([source], tmp_path / "whole", size=32)
    asked: list[int] = []
    monkeypatch.setattr(ingest_module, "check_space", lambda _, n_bytes: asked.append(n_bytes))

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ingest_module, "assemble", stop)
        with pytest.raises(KeyboardInterrupt):
            ingest([source], out, size=32)
    emptied = next(tmp_path.glob(".store.ingest/*.i16"))
    n_bytes = emptied.stat().st_size
    emptied.write_bytes(bytes(n_bytes))
    ingest([source], out, size=32)
    assert asked == [2 * 26 * 2 * 32**2, 26 * 2 * 32**2 + n_bytes]
    assert Store.open(out).hash == Store.open(tmp_path / "whole").hash


def test_a_file_of_many_slices_asks_for_room_by_its_bytes() -> None:
    scan = Entry("a.nii", Path("a.nii"), "nifti", 100 * 2 * 512**2 + 352, 0)
    pictures = [Entry(name, Path(name), "image", 10**9, 0) for name in ("1.png", "2.png")]
    assert slices_of([Unit("nifti", (scan,)), Unit("image", tuple(pictures))]) == 102


def test_the_names_of_refused_files_are_told_before_the_store_is_there(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(assemble_module, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        ingest([archive], tmp_path / "store", size=32, key=tmp_path / "key")
    (listing,) = (tmp_path / "key.refused").iterdir()
    assert pl.read_csv(listing)["name"].to_list() == ["labels.csv"]
    assert not (tmp_path / "store").exists()


def test_a_file_that_goes_between_looking_and_reading_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    shutil.copytree(archive / "PHANTOM-0000" / "head", source)

    def units_then_gone(*given: Any) -> Any:
        units = units_of(*given)
        (source / "003.dcm").unlink()
        return units

    monkeypatch.setattr(ingest_module, "units_of", units_then_gone)
    flow = ingest([source], tmp_path / "store", size=32)
    assert (flow.read, flow.refused) == (13, 1)
    assert flow.refusals[0].file == "003.dcm"


def test_a_volume_that_is_numbered_anew_is_another_part(archive: Path, tmp_path: Path) -> None:
    (found, *_) = walk([archive / "PHANTOM-0000" / "head"])
    assert isinstance(found, Entry)
    (header,) = read_headers(found)
    again = replace(header, series=f"{header.series}#2")
    job = Job(Shape(32), Keys(None), tmp_path)
    assert job.part_of(Unit("dicom", (header,))) != job.part_of(Unit("dicom", (again,)))


def test_equal_names_in_two_sources_are_two_files(archive: Path, tmp_path: Path) -> None:
    sources = [archive / "PHANTOM-0000" / "head", archive / "PHANTOM-0001" / "head"]
    (tmp_path / "labels.csv").write_text(
        "file,bleed\nPHANTOM-0000/head/003.dcm,1\nPHANTOM-0001/head/003.dcm,0\n"
    )
    flow = ingest(sources, tmp_path / "store", labels=tmp_path / "labels.csv", size=32)
    store = Store.open(tmp_path / "store")
    assert (flow.read, flow.slices, flow.labelled) == (28, 28, 2)
    labelled = store.index.filter(pl.col("bleed").is_not_null())
    assert labelled["z"].to_list() == [3, 3]
    assert labelled["patient"].n_unique() == 2


def test_pictures_get_their_patient_from_labels_neighbours_or_folders(tmp_path: Path) -> None:
    for folder in ("050", "051", "052"):
        (tmp_path / "jpg" / folder).mkdir(parents=True)
        for number in (1, 2):
            grey = np.full((8, 8), 3 * int(folder) + number, np.uint8)
            Image.fromarray(grey).save(tmp_path / "jpg" / folder / f"{number}.png")
    (tmp_path / "labels.csv").write_text(
        "patient,file,bleed,split\n50,050/1.png,1,test\n51,051/1.png,0,train\n51,051/2.png,0,train\n"
    )
    ingest(
        [tmp_path / "jpg"], tmp_path / "store", labels=tmp_path / "labels.csv", size=8,
        keep_ids=True,
    )  # fmt: skip
    index = Store.open(tmp_path / "store").index
    assert index["patient"].to_list() == ["50", "50", "51", "51", "052", "052"]
    assert index["split"].to_list() == ["test", "test", "train", "train", None, None]
    assert index["bleed"].to_list() == [1, None, 0, 0, None, None]
    assert set(index["units"]) == {"display"}
    ingest(
        [tmp_path / "jpg"], tmp_path / "by_pattern", size=8, keep_ids=True,
        patient_pattern=r"0(\d\d)/",
    )  # fmt: skip
    assert Store.open(tmp_path / "by_pattern").index["patient"].to_list()[::2] == ["50", "51", "52"]


def test_guessed_patients_are_told_and_a_pattern_ends_the_guessing(tmp_path: Path) -> None:
    for scan, patient in (("anna-1", ""), ("anna-2", ""), ("ben-1", "b")):
        for z in (0.0, 5.0):
            ds = slice_of(picture(int(z)), z=z, series=f"1.{scan[-1]}.{len(scan)}", patient=patient)
            save(ds, tmp_path / "scans" / f"{scan}/{z:g}.dcm")
    flow = ingest([tmp_path / "scans"], tmp_path / "store", size=16, workers=1)
    assert flow.patients == 3
    assert flow.notes == (
        "4 slices whose patient nothing names: 2 patients guessed by study, folder or file. Where "
        "a person has several of these, give --patient-pattern",
    )
    told = ingest(
        [tmp_path / "scans"], tmp_path / "told", size=16, workers=1, patient_pattern=r"(\w+)-"
    )
    assert (told.patients, told.notes) == (2, ())


def test_pictures_are_numbered_through_their_folder_however_many_workers_share_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "IMAGES_A_TASK", 2)
    for seed in range(5):
        folder = tmp_path / "scans" / ("p1" if seed < 3 else "p2")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed).astype(np.uint8)).save(folder / f"{seed}.png")
    labels = tmp_path / "labels.csv"
    labels.write_text("patient,slice,bleed\np1,1,0\np1,3,1\np2,2,1\n")
    ingest([tmp_path / "scans"], tmp_path / "store", labels=labels, size=16, keep_ids=True)
    assert Store.open(tmp_path / "store").index["bleed"].to_list() == [0, None, 1, None, 1]


def test_one_folder_a_class_is_a_label_and_no_patient(tmp_path: Path) -> None:
    for grey, name in enumerate(("covid/p1", "covid/p2", "none/p3")):
        (tmp_path / "jpg" / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), grey, np.uint8)).save(tmp_path / "jpg" / name / "1.png")
    ingest([tmp_path / "jpg"], tmp_path / "store", size=8, class_folders="finding", keep_ids=True)
    index = Store.open(tmp_path / "store").index
    assert index["finding"].to_list() == ["covid", "covid", "none"]
    assert index["patient"].to_list() == ["p1", "p2", "p3"]


def test_info_tells_the_flow_for_people_and_for_programs(archive: Path, tmp_path: Path) -> None:
    ingest([archive], tmp_path / "store", labels=archive / "labels.csv", size=32, keep_ids=True)
    store = Store.open(tmp_path / "store")
    described = json.loads(json.dumps(describe(store)))
    assert described["flow"] == {
        "files": 79, "read": 78, "skipped": 1, "duplicate": 0, "refused": 0, "series": 6,
        "slices": 78, "patients": 3,
    }  # fmt: skip
    assert described["lost"] == [
        {"status": "skipped", "reason": "no image that is read here", "files": 1}
    ]
    assert sum(row["share"] for row in described["hu_histogram"]) == pytest.approx(1)
    air = sum(row["share"] for row in described["hu_histogram"] if row["to"] <= -700)
    assert air == pytest.approx((store.read(np.arange(78)) < -700).mean(), abs=1e-6)
    assert described["labels"]["bleed"]["unlabelled"] == 36
    regions = {row["value"]: row["slices"] for row in described["labels"]["region"]["values"]}
    assert regions["head"] == 42
    text = "\n".join(lines(described))
    assert "79 found = 78 read + 1 skipped + 0 duplicate + 0 refused" in text
    emptiest = (store.read(np.arange(78)) < -950).mean()
    assert f"    below -950  {100 * emptiest:5.1f} %  #" in text
    assert "\n     from 1000  " in text
    write_montage(store, tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as montage:
        assert montage.size == (8 * 32, 8 * 32)


def test_info_says_that_a_label_is_a_measurement(tmp_path: Path) -> None:
    names = [f"p{row}" for row in range(21)]
    for scores, told in (([*range(20), 0], "  19: 1 slice, 1 patient"),
                         ([*range(21)], "  more than 20 different values")):  # fmt: skip
        index = pl.DataFrame({"patient": names, "series": names, "score": scores})
        store = write_store(tmp_path / f"{len(set(scores))}", np.zeros((21, 8, 8), np.int16), index)
        assert list(lines(describe(store)))[-1] == told


def test_medmnist_goes_through_the_verb_with_its_split_and_its_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = {"train": 5, "val": 2, "test": 3}
    images = {split: rng.integers(0, 256, (n, 28, 28), np.uint8) for split, n in counts.items()}
    labels = {split: rng.integers(0, 4, (n, 1), np.uint8) for split, n in counts.items()}
    np.savez(
        tmp_path / "organs.npz",
        **{f"{split}_images": of_split for split, of_split in images.items()},
        **{f"{split}_labels": of_split for split, of_split in labels.items()},
    )
    told = CliRunner().invoke(
        app,
        ["ingest", str(tmp_path / "organs.npz"), "--out", str(tmp_path / "store"), "--size=28"],
    )
    assert told.exit_code == 0, told.output
    assert "intervals are too narrow" in told.output
    store = Store.open(tmp_path / "store")
    assert store.facts.patients == 10
    assert not store.is_hu.any()
    for split in counts:
        rows = store.index.filter(pl.col("split") == split)
        assert rows["label"].to_list() == labels[split].ravel().tolist()
        shown = store.read(rows["slice"].to_numpy()) * (255 / 32767)
        assert np.array_equal(np.rint(shown), images[split])


def test_labels_that_only_the_pixels_refute_cost_no_second_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many slices a NIfTI file has is known once it is read; what was read then is kept."""
    monkeypatch.setattr(ingest_module, "convert", convert_some)
    hu = np.stack([picture(seed) for seed in range(4)])
    scan = nibabel.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-1.0, -1.0, 5.0, 1.0]))
    nibabel.save(scan, tmp_path / "p1.nii")
    labels = tmp_path / "labels.csv"
    labels.write_text("patient,z,bleed\np1,99,1\n")
    with pytest.raises(LabelError, match=r"matches no slice by patient \+ z"):
        ingest([tmp_path / "p1.nii"], tmp_path / "store", labels=labels, size=16)
    assert not (tmp_path / "store").exists()
    labels.write_text("patient,z,bleed\np1,3,1\n")
    flow = ingest([tmp_path / "p1.nii"], tmp_path / "store", labels=labels, size=16)
    assert (flow.slices, flow.labelled) == (4, 1)
    assert len(list((tmp_path / "marks").iterdir())) == 1
    assert not list(tmp_path.glob(".store*"))


def test_a_store_is_no_source(small_store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        ingest([small_store.path], tmp_path / "store", keep_ids=True)
    assert str(refusal.value) == (
        f"{small_store.path} is a store already. Give the scans that it was made of, or the store "
        "itself to the other verbs."
    )
    assert not (tmp_path / "store").exists()


def test_a_store_may_be_made_among_its_scans(archive: Path, tmp_path: Path) -> None:
    shutil.copytree(archive / "PHANTOM-0000", tmp_path / "scans")
    flow = ingest([tmp_path / "scans"], tmp_path / "scans" / "store", size=16, keep_ids=True)
    assert (flow.files, flow.read, flow.skipped) == (26, 26, 0)


def test_labels_of_whole_files_come_with_the_hint_to_judge_by_series(tmp_path: Path) -> None:
    for number in range(2):
        hu = np.stack([picture(2 * number), picture(2 * number + 1)])
        scan = nibabel.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-1.0, -1.0, 5.0, 1.0]))
        nibabel.save(scan, tmp_path / f"{number}.nii")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,bleed\n0.nii,0\n1.nii,1\n")
    flow = ingest([tmp_path], tmp_path / "store", labels=labels, size=16)
    assert (
        "  labels are by file: every slice of a file bears the label, whatever it shows. Judge by "
        'series: level = "series" in the task'
    ) in flow_lines(flow)
    assert Store.open(tmp_path / "store").index.group_by("series").len()["len"].to_list() == [2, 2]


def test_a_column_of_classes_needs_a_name_of_its_own(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'patient' is a column of every store"):
        ingest([archive], tmp_path / "store", class_folders="patient")
    with pytest.raises(ConfigError, match="has a column 'bleed' too"):
        ingest([archive], tmp_path / "store", class_folders="bleed", labels=archive / "labels.csv")
