"""Two thousand mutated files, twelve healthy ones among them, and a store that is right."""

import csv
import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from ct_files import picture, slice_of
from numpy.random import Generator
from PIL import Image

from hounsfield.data.archive import Entry, walk
from hounsfield.data.ingest import ingest
from hounsfield.data.labels import read_labels
from hounsfield.data.readers import nifti
from hounsfield.data.readers.dicom_headers import read_headers
from hounsfield.data.store import Store
from hounsfield.errors import InputError, ReadError
from hounsfield.seeding import stream

EACH = 350  # mutated files of every format
HEALTHY = 3  # files of every format among them
PAST_HEADER = 0.3  # at least, of every format
ANY = bytes(range(256))
TEXT = bytes(range(32, 127)) + b"\n"


def mutated(content: bytes, rng: Generator, *, body: int, letters: bytes = ANY) -> bytes:
    """`content` with one to five changes out of `letters`.

    Two times in three gently: bytes after `body` are replaced. Else roughly: anywhere, and bytes
    are added, taken out or cut off too.
    """
    data = bytearray(content)
    gentle = rng.random() < 2 / 3
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(min(body, len(data) - 1) if gentle else 0, len(data)))
        new = bytes(rng.choice(list(letters), size=int(rng.integers(1, 9))).astype(np.uint8))
        kind = 0 if gentle else rng.integers(0, 4)
        if kind == 0:
            data[at : at + len(new)] = new[: len(data) - at]
        elif kind == 1:
            data[at:at] = new
        elif kind == 2 and len(data) > 64:
            del data[at : at + len(new)]
        elif kind == 3 and rng.random() < 0.3:
            del data[max(at, 8) :]
    return bytes(data)


def dicom_bytes(number: int) -> bytes:
    buffer = io.BytesIO()
    ds = slice_of(picture(number, (12, 12)), z=float(number), InstanceNumber=number)
    ds.ConvolutionKernel, ds.PatientSex, ds.PatientAge = "SOFT", "F", "050Y"
    if number % 3 == 0:
        ds.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def nifti_bytes(number: int) -> bytes:
    array = picture(number, (10, 8))[:, :, None].repeat(3, 2)
    return nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])).to_bytes()


def png_bytes(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((picture(number, (12, 12)) // 16 % 256).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def npy_bytes(number: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, (picture(number, (12, 12)) // 16 % 256).astype(np.uint8)[None])
    return buffer.getvalue()


def npz_of(images: bytes) -> bytes:
    buffer, labels = io.BytesIO(), io.BytesIO()
    np.save(labels, np.array([[1]]))
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train_images.npy", images)
        archive.writestr("train_labels.npy", labels.getvalue())
    return buffer.getvalue()


def npz_bytes(number: int) -> bytes:
    return npz_of(npy_bytes(number))


def zip_bytes(number: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", png_bytes(5000 + number))  # unlike those outside
        archive.writestr("a/2.dcm", dicom_bytes(5000 + number))
        if number % 5 == 0:
            archive.writestr("../../../escaped.png", png_bytes(number))
        if number == 1001:
            archive.writestr("bomb.png", png_bytes(1) + b"\0" * (70 * 2**20))
    return buffer.getvalue()


FORMATS: dict[str, tuple[Callable[[int], bytes], int]] = {
    "dicom": (dicom_bytes, 900),
    "nifti": (nifti_bytes, 352),
    "png": (png_bytes, 40),
    "npz": (npz_bytes, 200),
    "zip": (zip_bytes, 100),
}
"""How to make a healthy file, and where its header is about over."""


def checksums(path: Path) -> Iterator[str]:
    """What the index says of the slices of a healthy file as their source."""
    contents, slices = [path.read_bytes()], 3 if path.parent.name == "nifti" else 1
    if path.parent.name == "npz":
        with np.load(path) as arrays:
            for place, image in enumerate(arrays["train_images"]):
                name = f"npz/{path.name}/train/{place}\n".encode()
                yield hashlib.sha256(name + image.tobytes()).hexdigest()
        return
    if path.parent.name == "zip":
        with zipfile.ZipFile(path) as archive:
            contents = [archive.read(name) for name in ("a/1.png", "a/2.dcm")]
    for content in contents:
        digest = hashlib.sha256(content).digest()
        for place in range(slices):
            yield hashlib.sha256(digest + place.to_bytes(4)).hexdigest()


def past_header(format_: str, path: Path) -> bool:
    """Whether what the format's header says could be parsed."""
    found = [one for one in walk([path]) if isinstance(one, Entry)]
    if not found:
        return False
    if format_ == "zip":
        return True
    try:
        if format_ == "dicom":
            return bool(read_headers(found[0]))
        if format_ == "nifti":
            nifti._announced(found[0].read()[:4096])
        if format_ == "png":
            Image.open(io.BytesIO(path.read_bytes())).close()
        if format_ == "npz":
            with zipfile.ZipFile(path) as archive:
                np.lib.format.read_magic(archive.open("train_images.npy"))
    except (ReadError, OSError, SyntaxError, ValueError, KeyError, RuntimeError):
        return False
    except zipfile.BadZipFile:
        return False
    return True


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Per format a folder of mutants with healthy files between them."""
    root = tmp_path_factory.mktemp("fuzz") / "sources"
    for format_, (make, body) in FORMATS.items():
        (root / format_).mkdir(parents=True)
        originals = [make(1000 + number) for number in range(20)]
        for number in range(EACH):
            rng = stream(0, "fuzz", format_, number)
            content = mutated(originals[number % len(originals)], rng, body=body)
            if format_ == "npz" and number % 3:  # a checksum guards its arrays: change them within
                content = npz_of(mutated(npy_bytes(number), rng, body=128))
            (root / format_ / f"mutant_{number:04d}").write_bytes(content)
        for number in range(HEALTHY):
            (root / format_ / f"healthy_{number}").write_bytes(make(number))
    return root


@pytest.mark.filterwarnings("ignore")  # what pydicom and Pillow say of mutants
def test_enough_mutants_get_past_the_header(sources: Path) -> None:
    for format_ in FORMATS:
        mutants = sorted((sources / format_).glob("mutant_*"))
        share = np.mean([past_header(format_, path) for path in mutants])
        assert share >= PAST_HEADER, (format_, share)


def test_mutants_neither_crash_nor_hang_nor_escape_nor_harm_their_neighbours(
    sources: Path, tmp_path: Path
) -> None:
    flow = ingest([sources], tmp_path / "store", size=12, keep_ids=True)
    store = Store.open(tmp_path / "store")
    store.verify()
    assert {path.name for path in tmp_path.iterdir()} == {"store"}
    assert not list(sources.parent.parent.rglob("escaped*"))
    assert all(refusal.reason for refusal in flow.refusals)
    assert not any("reader" in refusal.reason for refusal in flow.refusals)  # died or hung
    statuses = Counter(refusal.status for refusal in flow.refusals)
    assert statuses["refused"] > EACH
    kept = set(store.index["source"])
    for path in sources.glob("*/healthy_*"):
        wanted = list(checksums(path))
        assert wanted
        assert set(wanted) <= kept, path
    labels = store.index.filter(store.index["units"] == "display")["label"].drop_nulls()
    assert set(labels) <= set(range(256))


def test_mutated_label_tables_are_read_or_refused(tmp_path: Path) -> None:
    text = io.StringIO()
    rows = [["patient", "file", "bleed", "split"]]
    rows += [[f"p{n // 4}", f"a/{n}.dcm", str(n % 2), "train"] for n in range(30)]
    csv.writer(text).writerows(rows)
    past = 0
    for number in range(EACH):
        rng = stream(0, "fuzz", "csv", number)
        content = mutated(text.getvalue().encode(), rng, body=30, letters=TEXT)
        (tmp_path / "labels.csv").write_bytes(content)
        try:
            read_labels(tmp_path / "labels.csv")
        except InputError as error:
            if "cannot be read" in str(error) or "slices are named by" in str(error):
                continue
        past += 1
    assert past >= PAST_HEADER * EACH
