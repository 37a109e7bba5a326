"""Who the patients are stays out of everything that is written or said."""

import base64
import io
import json
import re
import zipfile
from pathlib import Path

import polars as pl
import pydicom
import pypdf
import pytest
import vl_convert
from PIL import Image, PngImagePlugin
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from hounsfield.cli import app
from hounsfield.data.phantom import phantom
from hounsfield.data.store import Store
from long_work import SMALL_PRETRAIN

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
ODD = [  # not what the kinds of tags allow: readers warn of such values
    ("PatientID", "LO", "Zebedaeus1 " * 20),
    ("PatientBirthDate", "DA", "Quirinus"),
    ("PatientAge", "AS", "Zebedaeus1"),
    ("PatientSex", "CS", "quirinus of nowhere"),
    ("StudyInstanceUID", "UI", "MRN-773100421"),
]
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

SPARK = SMALL_PRETRAIN.replace('"moco_v2"', '"spark"').replace("image_size = 32", "image_size = 64")
FINETUNE = (
    "--weights=scratch", "--task=region", "--set=backbone=resnet10_tiny", "--set=device=cpu",
    "--set=image_size=32", "--set=budget.steps=30", "--set=budget.batch=16", "--set=budget.lr=3e-3",
    "--set=budget.looks=1",
)  # fmt: skip


@pytest.fixture
def archive(tmp_path):
    """DICOM series with identities in every tag that may hold them and in folders' names.

    Some files are broken.
    """
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
        named = patient.rename(place / f"Zebedaeus{number}_Quirinus")
        text = text.replace(f"{patient.name}/", f"{named.name}/")
    labels.write_text(text)
    broken = sorted(place.rglob("*.dcm"))
    broken[0].write_bytes(broken[0].read_bytes()[:-3000])
    broken[1].write_bytes(broken[1].read_bytes()[:400])
    odd = pydicom.dcmread(broken[2])
    for tag, kind, text in ODD:
        odd[tag] = DataElement(tag, kind, text, validation_mode=IGNORE)
    odd.save_as(broken[2])
    for number, tag in enumerate(("SliceThickness", "InstanceNumber"), 3):
        file = broken[number]
        ds = pydicom.dcmread(file)
        setattr(ds, tag, "1234567890")
        ds.save_as(file)  # pydicom itself would not write a name where a number is due
        file.write_bytes(file.read_bytes().replace(b"1234567890", b"Zebedaeus1"))
    return place, sorted(uids)


def plant(ds, number):
    for tag, text in PLANTED.items():
        setattr(ds, tag, text.format(n=number))
    inner = Dataset()
    inner.PatientID = PLANTED["PatientID"].format(n=number)
    ds.OtherPatientIDsSequence = [inner]
    block = ds.private_block(0x0011, "ZEBEDAEUS PRIVATE", create=True)
    block.add_new(0x01, "LO", PLANTED["PatientName"].format(n=number))


def texts(name, content):
    """What a file says, unpacked as far as it can be."""
    yield content
    kind = Path(name).suffix
    if kind == ".parquet":
        yield pl.read_parquet(io.BytesIO(content)).write_json().encode()
    if kind == ".png":
        with Image.open(io.BytesIO(content)) as picture:
            yield json.dumps({str(key): str(text) for key, text in picture.info.items()}).encode()
    if kind == ".pdf":
        document = pypdf.PdfReader(io.BytesIO(content))
        yield str(document.metadata).encode()
        yield from (page.extract_text().encode() for page in document.pages)
    if kind == ".html":
        for inner, packed in re.findall(rb"data:\w+/(\w+);base64,([\w+/=]+)", content):
            yield from texts(f"picture.{inner.decode()}", base64.b64decode(packed))
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            for inner in packed.namelist():
                yield inner.encode()
                yield from texts(inner, packed.read(inner))


def invoke(*arguments):
    told = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if told.exception is not None and not isinstance(told.exception, SystemExit):
        return f"{told.output}\n{told.exception!r}"
    return told.output


@pytest.mark.timeout(1800)
def test_no_identity_in_any_output_of_the_whole_pipeline(archive, tmp_path, capfd):
    """Every verb that is given something of patients, and the errors that it meets on the way."""
    source, uids = archive
    out = tmp_path / "out"
    out.mkdir()
    (out / "study.toml").write_text(STUDY)
    (out / "pretrain.toml").write_text(SMALL_PRETRAIN.format(store=out / "store"))
    (out / "spark.toml").write_text(SPARK.format(store=out / "store"))
    labels = source / "labels.csv"
    ingest = ("ingest", source, "--size", 32, "--key", tmp_path / "key", "--workers", 1)
    study, run, kept = out / "study", out / "run", out / "classifier"
    predict = ("predict", kept, "--key", tmp_path / "key")
    commands = [
        (*ingest, "--out", out / "none", "--labels", wrong_labels(tmp_path, "once,twice")),
        (*ingest, "--out", out / "none", "--labels", wrong_labels(tmp_path, "nobody")),
        (*ingest, "--out", out / "none", "--labels", wrong_labels(tmp_path, "nowhere")),
        (*ingest, "--out", out / "none", "--labels", wrong_labels(tmp_path, "torn")),
        (*ingest, "--out", out / "none", "--labels", wrong_labels(tmp_path, "ragged")),
        (*ingest, "--out", out / "none", "--labels", wrong_labels(tmp_path, "shifted")),
        (*ingest, "--out", out / "store", "--labels", labels),
        (*ingest, "--out", out / "store", "--labels", labels),  # refused: it is there
        (*ingest, "--out", out / "store", "--append"),
        ("info", out / "store", "--montage", out / "montage.png"),
        ("info", out / "store", "--json"),
        ("thin", out / "store", "--out", out / "thin"),
        ("leaks", out / "store"),
        ("pretrain", out / "pretrain.toml", "--out", run),
        ("pretrain", out / "pretrain.toml", "--out", run, "--set", "seed=7"),  # refused
        ("pretrain", out / "spark.toml", "--out", out / "spark"),
        ("reconstruct", out / "spark", out / "store", "--out", out / "drawn.png"),
        ("study", out / "study.toml", "--out", study, "--dry-run"),
        ("study", out / "study.toml", "--out", study, "--saliency"),
        ("power", study),
        ("report", study),
        ("weights", run, "--backbone", "resnet10_tiny"),
        ("export", run, "--out", out / "export"),
        ("finetune", "--store", out / "store", "--out", kept, *FINETUNE),
        ("export", kept, "--out", out / "exported"),
        (*predict, source, "--out", out / "scores.csv", "--heatmaps", out / "heat"),
        (*predict, source / "labels.csv", "--out", out / "no.csv"),
        ("doctor",),
    ]
    said = "\n".join(invoke(*command) for command in commands)
    said += "".join(capfd.readouterr())
    for made in ("store/index.parquet", "thin/store.json", "run/encoder.safetensors", "montage.png",
                 "drawn.png", "study/results.parquet", "study/report/report.html", "export",
                 "classifier", "exported", "scores.csv", "heat", "no.refused.csv"):  # fmt: skip
        assert (out / made).exists(), said
    assert any(path.stat().st_size for path in (run / "tensorboard").iterdir())
    assert list((study / "pictures").glob("*.png"))
    for word in ("more than once", "matches no slice", "matches no file", "two splits", "exists",
                 "the split is like"):  # fmt: skip
        assert word in said
    assert Store.open(out / "store").facts.keyed
    secret = re.compile("|".join(map(re.escape, [*SECRETS, *uids])).encode(), re.IGNORECASE)
    found = {"what was said": secret.findall(said.encode())}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        found[name] = secret.findall(name.encode())
        if path.is_file():
            for text in texts(path.name, path.read_bytes()):
                found[name] += secret.findall(text)
    assert {name: words[:3] for name, words in found.items() if words} == {}
    assert len(found) > 100


def wrong_labels(place, fault):
    """A table of labels with a fault that a message must tell without naming anybody."""
    rows = {
        "once,twice": "patient,bleed\nMRN-773100421,1\nMRN-773100421,0\n",
        "nobody": "patient,bleed\nMRN-7731004299,1\n",
        "nowhere": "file,bleed\nZebedaeus1/Quirinus.dcm,1\n",
        "torn": "patient,z,bleed,split\nMRN-773100421,1,0,train\nMRN-773100421,2,0,test\n",
        "shifted": "patient,split,bleed\nMRN-773100421,Zebedaeus1^Quirinus,1\n",
        "ragged": "patient,bleed\nMRN-773100421,1,Zebedaeus1,Quirinus\n",
    }
    path = place / f"{fault}.csv"
    path.write_text(rows[fault])
    return path


def test_the_search_would_find_an_identity_in_each_kind_of_file(tmp_path):
    pl.DataFrame({"who": ["Zebedaeus1"]}).write_parquet(tmp_path / "a.parquet")
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("who", "Zebedaeus1" * 9)
    (tmp_path / "c.bin").write_bytes(b"\0Zebedaeus1\0")
    words = PngImagePlugin.PngInfo()
    words.add_text("who", "Zebedaeus1" * 9, zip=True)
    Image.new("L", (4, 4)).save(tmp_path / "d.png", pnginfo=words)
    picture = base64.b64encode((tmp_path / "d.png").read_bytes()).decode()
    (tmp_path / "e.html").write_text(f'<img src="data:image/png;base64,{picture}">')
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="99" height="20"><text x="5" y="15" '
    svg += 'font-family="sans-serif" font-size="10">Zebedaeus1</text></svg>'
    (tmp_path / "f.pdf").write_bytes(vl_convert.svg_to_pdf(svg))
    for path in Path(tmp_path).iterdir():
        found = [text for text in texts(path.name, path.read_bytes()) if b"Zebedaeus1" in text]
        assert found, path.name
