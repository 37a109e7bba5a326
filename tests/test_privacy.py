"""Who the patients are stays out of everything that is written or said."""

import io
import re
import zipfile
from pathlib import Path

import polars as pl
import pydicom
import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from hounsfield.cli import app
from hounsfield.data.phantom import phantom

PLANTED = {
    "PatientName": "Zebedaeus{n}^Quirinus",
    "PatientID": "MRN-77310042{n}",
    "PatientBirthDate": "193104{n:02d}",
    "OtherPatientIDs": "ALT-55190027{n}",
    "PatientAddress": "Schwalbennestgasse {n}",
    "PatientTelephoneNumbers": "+49-555-0190{n}",
    "PatientMotherBirthName": "Hollerblueth{n}",
    "AccessionNumber": "ACC66128{n}",
    "StudyID": "STD90417{n}",
    "StudyDescription": "Kontrolle Zebedaeus{n}",
    "SeriesDescription": "Serie fuer Hollerblueth{n}",
    "ReferringPhysicianName": "Ottokar^Wunderlich",
    "OperatorsName": "Kunigunde^Sturmhut",
    "InstitutionName": "Krankenhaus Siebenbergen",
    "StationName": "SIEBENCT7",
    "DeviceSerialNumber": "SN-40090831",
    "ImageComments": "ruft Zebedaeus{n} zurueck",
    "StudyDate": "199901{n:02d}",
}
SECRETS = [
    "Zebedaeus", "Quirinus", "77310042", "55190027", "Schwalbennest", "555-0190",
    "Hollerblueth", "ACC66128", "STD90417", "Ottokar", "Wunderlich", "Kunigunde", "Sturmhut",
    "Siebenbergen", "SIEBENCT7", "40090831",
    *(f"{month}{day:02d}" for month in ("193104", "199901") for day in range(1, 9)),
]  # fmt: skip

STUDY = """
arms = ["scratch", "moco_v2"]
backbone = "resnet10_tiny"
image_size = 32
fractions = [1.0]
repeats = 1
device = "cpu"
budget = { steps = 2, batch = 8, lr = 0.001, looks = 1 }
stores = { ct = "store" }
tasks.bleed = { store = "ct", label = "bleed" }
[pretrain.moco_v2]
batch_size = 8
budget = { steps = 2 }
loop = { log_every = 1, watch_every = 2, checkpoint_every = 1 }
moco_v2 = { queue_size = 32 }
"""

PRETRAIN = """
method = "moco_v2"
stores = ["{store}"]
backbone = "resnet10_tiny"
image_size = 32
batch_size = 8
budget.steps = 2
device = "cpu"
"""


@pytest.fixture
def archive(tmp_path):
    """DICOM series that bear identities in every tag that may hold them; some files broken."""
    place = tmp_path / "archive"
    labels = phantom(place, patients=6, seed=0)
    text, uids = labels.read_text(), set()
    for number, patient in enumerate(sorted(path for path in place.iterdir() if path.is_dir()), 1):
        text = text.replace(f",{patient.name},", f",MRN-77310042{number},")
        for file in patient.rglob("*.dcm"):
            ds = pydicom.dcmread(file)
            plant(ds, number)
            uids |= {ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID}
            ds.save_as(file)
    labels.write_text(text)
    broken = sorted(place.rglob("*.dcm"))
    broken[0].write_bytes(broken[0].read_bytes()[:-3000])
    broken[1].write_bytes(broken[1].read_bytes()[:400])
    return place, sorted(uids)


def plant(ds, number):
    for tag, text in PLANTED.items():
        setattr(ds, tag, text.format(n=number))
    inner = Dataset()
    inner.PatientID = PLANTED["PatientID"].format(n=number)
    ds.OtherPatientIDsSequence = [inner]
    block = ds.private_block(0x0011, "ZEBEDAEUS PRIVATE", create=True)
    block.add_new(0x01, "LO", PLANTED["PatientName"].format(n=number))


def texts(path):
    """What a file says, unpacked as far as it can be."""
    content = path.read_bytes()
    yield content
    if path.suffix == ".parquet":
        yield pl.read_parquet(io.BytesIO(content)).write_json().encode()
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            yield from (packed.read(name) for name in packed.namelist())


def invoke(*arguments):
    told = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if told.exception is not None and not isinstance(told.exception, SystemExit):
        return f"{told.output}\n{told.exception!r}"
    return told.output


@pytest.mark.timeout(900)
def test_no_identity_in_any_output_of_the_whole_pipeline(archive, tmp_path, capfd):
    source, uids = archive
    out = tmp_path / "out"
    out.mkdir()
    (out / "study.toml").write_text(STUDY)
    (out / "pretrain.toml").write_text(PRETRAIN.format(store=out / "store"))
    labels = source / "labels.csv"
    ingest = ("ingest", source, "--labels", labels, "--size", 32, "--key", tmp_path / "key")
    study = out / "study"
    commands = [
        (*ingest, "--workers", 1, "--out", out / "store"),
        (*ingest, "--workers", 1, "--out", out / "store"),  # refused: an error message
        ("info", out / "store", "--montage", out / "montage.png"),
        ("info", out / "store", "--json"),
        ("thin", out / "store", "--out", out / "thin"),
        ("leaks", out / "store"),
        ("pretrain", out / "pretrain.toml", "--out", out / "run"),
        ("pretrain", out / "pretrain.toml", "--out", out / "run", "--set", "seed=7"),  # refused
        ("study", out / "study.toml", "--out", study),
        ("report", study),
        ("export", out / "run", "--out", out / "export"),
        ("weights", out / "run", "--backbone", "resnet10_tiny"),
    ]
    said = "\n".join(invoke(*command) for command in commands)
    said += "".join(capfd.readouterr())
    for made in ("store/index.parquet", "thin/store.json", "run/encoder.safetensors"):
        assert (out / made).exists(), said
    for made in ("study/results.parquet", "study/report", "export"):
        assert (out / made).exists(), said
    assert list((out / "run/tensorboard").iterdir())
    secret = re.compile("|".join(map(re.escape, [*SECRETS, *uids])).encode(), re.IGNORECASE)
    found = {"what was said": secret.findall(said.encode())}
    for path in sorted(file for file in out.rglob("*") if file.is_file()):
        found[str(path.relative_to(out))] = [
            word for text in texts(path) for word in secret.findall(text)
        ]
    assert {name: words[:3] for name, words in found.items() if words} == {}
    assert len(found) > 40


def test_the_search_would_find_an_identity_in_each_kind_of_file(tmp_path):
    pl.DataFrame({"who": ["Zebedaeus1"]}).write_parquet(tmp_path / "a.parquet")
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("who", "Zebedaeus1" * 9)
    (tmp_path / "c.bin").write_bytes(b"\0Zebedaeus1\0")
    for path in Path(tmp_path).iterdir():
        assert any(b"Zebedaeus1" in text for text in texts(path))
