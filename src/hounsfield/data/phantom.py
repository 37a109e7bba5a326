"""Synthetic CT written as real DICOM, with labels: data for the demo and the tests.

A phantom shows that the machinery works. It is no evidence about real scans.

Every patient has a head series (5 mm slices, edge to edge) and a trunk series (5 mm slices, far
apart). Bodies are ellipsoids in a patient's own size, pose and warp, painted in HU with partial
volume, blurred by a kernel, under scanner noise.

Task `bleed`: a fresh bleed in a head slice. It lies anywhere, so the level tells nothing; falx,
calcifications and venous blood are bright as well, in everybody. Trunk slices have no such label.
Task `region`: the body level of any slice. Organs stand higher or lower in every patient than the
borders between the levels, so slices near a border stay uncertain.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy import ndimage

from hounsfield.data.volume import AIR_HU
from hounsfield.errors import ConfigError
from hounsfield.files import check_space, disk_errors, write_text
from hounsfield.lock import new_folder
from hounsfield.seeding import stream

THICKNESS_MM = 5.0
HEAD_SLICES, HEAD_STEP_MM = 14, 5.0
TRUNK_SLICES, TRUNK_STEP_MM = 12, 45.0
INTERCEPT = -1024
MATRIX = 128
HEADER_BYTES = 2048  # of a file, about

# What makes the tasks hard. Chosen so that few labels are clearly worse than many, and many are
# clearly short of perfect.
BLEED_PATIENTS = 0.6  # share of patients with a bleed near or in the scanned part of the head
BLEED_HU = (65.0, 80.0)
BLEED_RADIUS_MM = (11.0, 18.0)  # in the plane
BLEED_HALF_HEIGHT_MM = (14.0, 26.0)
BLEED_SEEN_MM2 = 60.0  # a slice is called positive from this area of blood on
NOISE_HU = (3.0, 6.0)  # standard deviation after the kernel
OFFSET_MM = 12.0  # standard deviation of a body's place on the table
DECOYS = 1.5  # bright things that are no bleed, in the mean a head
ROLL_RAD = 0.3  # standard deviation of how a trunk is turned on the table
PRONE_PATIENTS = 0.2  # share of patients whose trunk is scanned face down
ORGAN_SHIFT_MM = 28.0  # standard deviation of organs against the borders of the levels
SHARES = {"train": 0.5, "val": 0.15, "test": 0.35}  # of the patients

REGIONS = ("pelvis", "abdomen", "lower chest", "upper chest", "head")
BORDERS_MM = (135.0, 270.0, 405.0)  # between the trunk's levels, from its lowest slice


@dataclass(frozen=True)
class Ellipsoid:
    """A body part: centre and radii in mm `(x, y, z)`, turned by `turn` radians around z."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    hu: float
    turn: float = 0.0


@dataclass(frozen=True)
class Warp:
    """A smooth shift of the plane, so that no ellipsoid stays one: `shift_mm` at wavelength."""

    shift_mm: tuple[float, float]
    wavelength_mm: tuple[float, float]
    phase: tuple[float, float]


@dataclass(frozen=True)
class Scanner:
    """How a body becomes an image."""

    pixel_mm: float
    noise_hu: float
    blur_mm: float
    kernel: str
    offset_mm: tuple[float, float]


@dataclass(frozen=True)
class Scan:
    """One series: what is scanned, how, where, and what its labels are."""

    name: str
    parts: tuple[Ellipsoid, ...]
    warp: Warp
    scanner: Scanner
    z_mm: NDArray[np.floating[Any]]
    bleed: tuple[int | None, ...]
    region: tuple[str, ...]


@dataclass(frozen=True)
class Patient:
    """A phantom patient: number, sex, age and the two scans."""

    number: int
    sex: str
    age: int
    scans: tuple[Scan, Scan]

    @property
    def bleeds(self) -> bool:
        """Whether any slice shows a bleed."""
        return any(1 in scan.bleed for scan in self.scans)


def phantom(
    out: Path,
    *,
    patients: int,
    seed: int,
    matrix: int = MATRIX,
    advance: Callable[[], None] = lambda: None,
) -> Path:
    """A folder of DICOM series and `labels.csv`; equal arguments give equal files.

    Args:
        out: The folder, which must not exist.
        patients: How many, each with 26 slices.
        seed: Of everything that is random.
        matrix: Pixels a side of the images.
        advance: Called after every patient.

    Returns:
        The path of `labels.csv`: file, patient, series, z_mm, bleed, region, split.

    Raises:
        OutputError: `out` exists.
        ConfigError: No patients, or a matrix that is too small to hold a body.
        DiskError: The disk has no room for them, or is not writable.
    """
    if patients < 1 or matrix < 32:
        raise ConfigError(
            f"{patients} patients of {matrix} px were asked for; at least 1 of at least 32 px."
        )
    check_space(out, patients * (HEAD_SLICES + TRUNK_SLICES) * (2 * matrix**2 + HEADER_BYTES))
    with new_folder(out) as folder:
        everyone = [draw_patient(number, seed) for number in range(patients)]
        splits = _splits(everyone, seed)
        rows: list[list[object]] = []
        for patient, split in zip(everyone, splits, strict=True):
            for row in _write_patient(folder, patient, seed, matrix):
                rows.append([*row, split])
            advance()
        header = ["file", "patient", "series", "z_mm", "bleed", "region", "split"]
        write_text(folder / "labels.csv", _csv(header, rows))
    return out / "labels.csv"


def draw_patient(number: int, seed: int) -> Patient:
    """Patient `number` of the phantom world of `seed`."""
    rng = stream(seed, "phantom", number)
    return Patient(
        number=number,
        sex=str(rng.choice(["F", "M"])),
        age=int(rng.integers(25, 86)),
        scans=(_head(rng), _trunk(rng)),
    )


def render(scan: Scan, number: int, rng: Generator, *, matrix: int) -> NDArray[np.int16]:
    """Slice `number` of `scan` in HU, `(matrix, matrix)`: rows to the back, columns to the left."""
    pixel = scan.scanner.pixel_mm * MATRIX / matrix
    axis = (np.arange(matrix, dtype=np.float32) - (matrix - 1) / 2) * np.float32(pixel)
    x, y = np.meshgrid(axis - scan.scanner.offset_mm[0], axis - scan.scanner.offset_mm[1])
    x, y = _warped(x, y, scan.warp)
    image = np.zeros((matrix, matrix), dtype=np.float32)
    halves = (-THICKNESS_MM / 4, THICKNESS_MM / 4)  # two planes stand for the slice's thickness
    for half in halves:
        image += _plane(scan.parts, x, y, float(scan.z_mm[number]) + half, pixel) / len(halves)
    sigma = scan.scanner.blur_mm / pixel
    grain = ndimage.gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), sigma)
    image = ndimage.gaussian_filter(image, sigma)
    image += grain * (scan.scanner.noise_hu / max(float(grain.std()), 1e-6))
    return np.clip(np.rint(image), INTERCEPT, INTERCEPT + 4095).astype(np.int16)


def _plane(
    parts: tuple[Ellipsoid, ...],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: float,
    pixel_mm: float,
) -> NDArray[np.float32]:
    """The parts painted over each other at height `z`, edges blended over one pixel."""
    image = np.full(x.shape, AIR_HU, dtype=np.float32)
    for part in parts:
        dz = np.float32((z - part.centre[2]) / part.radii[2])
        if abs(dz) >= 1:
            continue
        rx, ry = part.radii[0], part.radii[1]
        cos, sin = np.float32(np.cos(part.turn)), np.float32(np.sin(part.turn))
        dx, dy = x - np.float32(part.centre[0]), y - np.float32(part.centre[1])
        u, v = (cos * dx + sin * dy) / np.float32(rx), (cos * dy - sin * dx) / np.float32(ry)
        reach = np.sqrt(u * u + v * v + dz * dz)  # 1 on the surface
        slope = np.sqrt((u / np.float32(rx)) ** 2 + (v / np.float32(ry)) ** 2) / (reach + 1e-6)
        inside = np.clip(0.5 - (reach - 1) / (slope * pixel_mm + 1e-6), 0, 1)
        image += inside * (np.float32(part.hu) - image)
    return image


def _warped(
    x: NDArray[np.float32], y: NDArray[np.float32], warp: Warp
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    shift_x = warp.shift_mm[0] * np.sin(y * (2 * np.pi / warp.wavelength_mm[0]) + warp.phase[0])
    shift_y = warp.shift_mm[1] * np.sin(x * (2 * np.pi / warp.wavelength_mm[1]) + warp.phase[1])
    return x + shift_x.astype(np.float32), y + shift_y.astype(np.float32)


def _head(rng: Generator) -> Scan:
    """A head from skull base to crown, z = 0 at the brain's middle."""
    rx, ry, rz = rng.uniform(66, 78), rng.uniform(84, 98), rng.uniform(88, 100)
    skull = rng.uniform(5, 9)
    brain_hu = rng.uniform(28, 36)
    tilt = rng.normal(0, 0.12)

    def at(x: float, y: float, z: float) -> tuple[float, float, float]:
        return (
            float(x * np.cos(tilt) - y * np.sin(tilt)),
            float(x * np.sin(tilt) + y * np.cos(tilt)),
            z,
        )

    def part(
        x: float, y: float, z: float, radii: tuple[float, float, float], hu: float
    ) -> Ellipsoid:
        return Ellipsoid(at(x, y, z), radii, float(hu), float(tilt))

    brain = (rx - skull, ry - skull, rz - skull)
    width, drop = rng.uniform(6, 14), rng.uniform(-4, 4)
    parts = [
        part(0, 0, 0, (rx + 6, ry + 6, rz + 6), rng.uniform(-80, 10)),  # scalp
        part(0, 0, 0, (rx, ry, rz), rng.uniform(700, 1400)),
        part(0, 0, 0, brain, brain_hu),
        part(0, 0, 5, (brain[0] * 0.8, brain[1] * 0.82, brain[2] * 0.8), brain_hu - 6),
        part(-width, -18 + drop, 12, (width * 0.8, 26, 22), rng.uniform(4, 12)),  # ventricles
        part(width, -18 + drop, 12, (width * 0.8, 26, 22), rng.uniform(4, 12)),
        part(0, 0, 30, (1.6, brain[1], 60), rng.uniform(40, 52)),  # falx
        part(0, brain[1] - 5, 5, (7, 6, 60), rng.uniform(45, 60)),  # venous blood
        part(0, 25, -52, (44, 12, 16), rng.uniform(300, 900)),  # skull base
        part(0, -brain[1] * 0.8, -48, (16, 14, 16), AIR_HU),  # sinus
    ]
    for _ in range(rng.poisson(DECOYS)):
        parts.append(_decoy(rng, brain, at))
    start = rng.uniform(-32, -22)
    z_mm = start + HEAD_STEP_MM * np.arange(HEAD_SLICES)
    bleed = [0] * HEAD_SLICES
    if rng.random() < BLEED_PATIENTS:
        lesion = _bleed(rng, brain, at, z_mm)
        bleed = [int(_area_mm2(lesion, z) >= BLEED_SEEN_MM2) for z in z_mm]
        parts.append(lesion)
    return Scan(
        name="head",
        parts=tuple(parts),
        warp=_warp(rng, 3.0),
        scanner=_scanner(rng, field_mm=(215, 265), noise=1.0),
        z_mm=z_mm,
        bleed=tuple(bleed),
        region=("head",) * HEAD_SLICES,
    )


Placed = Callable[[float, float, float], tuple[float, float, float]]


def _bleed(
    rng: Generator,
    brain: tuple[float, float, float],
    at: Placed,
    z_mm: NDArray[np.floating[Any]],
) -> Ellipsoid:
    """A bleed whose middle is uniform over the scan and beyond its ends by its own half height.

    So every level of the scan is as likely to lie inside it as any other.
    """
    half = rng.uniform(*BLEED_HALF_HEIGHT_MM)
    z = rng.uniform(z_mm[0] - half, z_mm[-1] + half)
    blood_hu = float(rng.uniform(*BLEED_HU))
    x, y = _in_disc(rng, 0.5 * brain[0], 0.5 * brain[1])
    radii = (float(rng.uniform(*BLEED_RADIUS_MM)), float(rng.uniform(*BLEED_RADIUS_MM)), half)
    return Ellipsoid(at(x, y, z), radii, blood_hu, float(rng.uniform(0, np.pi)))


def _decoy(rng: Generator, brain: tuple[float, float, float], at: Placed) -> Ellipsoid:
    """Bright and no bleed: a calcification (small, dense) or an old scar's rim (thin, long)."""
    x, y = _in_disc(rng, 0.6 * brain[0], 0.6 * brain[1])
    z = rng.uniform(-40, 50)
    turn = float(rng.uniform(0, np.pi))
    if rng.random() < 0.5:
        radius = rng.uniform(2, 4)
        return Ellipsoid(at(x, y, z), (radius, radius, 8), float(rng.uniform(80, 220)), turn)
    return Ellipsoid(at(x, y, z), (2.0, rng.uniform(8, 20), 14), float(rng.uniform(50, 70)), turn)


def _area_mm2(part: Ellipsoid, z: float) -> float:
    share = 1 - ((z - part.centre[2]) / part.radii[2]) ** 2
    return float(np.pi * part.radii[0] * part.radii[1] * max(share, 0.0))


def _trunk(rng: Generator) -> Scan:
    """A trunk from pelvis (z = 0) to shoulders (z = 540)."""
    size, fat = rng.uniform(0.85, 1.15), rng.uniform(6, 34)
    shift = rng.normal(0, ORGAN_SHIFT_MM)
    contrast = float(rng.choice([0.0, 60.0]))
    roll = rng.normal(0, ROLL_RAD) + (np.pi if rng.random() < PRONE_PATIENTS else 0.0)
    cos, sin = np.cos(roll), np.sin(roll)

    def part(
        x: float, y: float, z: float, radii: tuple[float, float, float], hu: float
    ) -> Ellipsoid:
        jitter = rng.normal(0, 8, size=3)
        rx, ry, rz = (radius * rng.uniform(0.85, 1.15) for radius in radii)
        return Ellipsoid(
            (
                float(cos * x - sin * y) * size + jitter[0],
                float(sin * x + cos * y) * size + jitter[1],
                z + shift + jitter[2],
            ),
            (rx * size, ry * size, rz),
            float(hu),
            float(roll + rng.normal(0, 0.1)),
        )

    walls = [
        part(0, 0, 40, (165, 105, 190), 0),
        part(0, 0, 250, (140, 98, 330), 0),
        part(0, 0, 440, (160, 105, 230), 0),
    ]
    skin = [
        replace(wall, radii=(wall.radii[0] + fat, wall.radii[1] + fat, wall.radii[2]), hu=-100.0)
        for wall in walls
    ]
    muscle = [replace(wall, hu=50.0) for wall in walls]
    lung_hu = rng.uniform(-860, -740)
    parts = [
        *skin,
        *muscle,
        part(-70, 0, 420, (54, 76, 125), lung_hu),
        part(70, 0, 420, (54, 76, 125), lung_hu),
        part(12, -20, 360, (48, 40, 52), 45 + contrast),  # heart
        part(0, 0, 180, (95, 62, 110), -100),  # fat in the belly
        part(-62, -10, 265, (72, 66, 75), 60 + contrast * 0.8),  # liver
        part(78, 18, 265, (30, 38, 45), 50 + contrast),  # spleen
        part(40, -35, 250, (32, 28, 40), float(rng.choice([-900.0, 20.0]))),  # stomach
        part(-55, 42, 185, (26, 24, 50), 32 + contrast * 1.8),
        part(55, 42, 190, (26, 24, 50), 32 + contrast * 1.8),
        *(
            part(
                float(rng.uniform(-80, 80)),
                float(rng.uniform(-55, 15)),
                float(rng.uniform(30, 220)),
                (18, 16, 40),
                float(rng.choice([-850.0, -20.0, 25.0, 40.0])),
            )
            for _ in range(10)
        ),  # bowel
        part(0, -15, 20, (38, 34, 40), 8),  # bladder
        part(-95, 25, 40, (16, 46, 75), 450),  # iliac bones
        part(95, 25, 40, (16, 46, 75), 450),
        part(0, 20, 330, (12, 12, 330), 45 + contrast * 1.5),  # aorta
        part(0, 66, 270, (21, 18, 420), float(rng.uniform(300, 600))),  # spine
        part(0, 84, 270, (8, 7, 420), 30),
    ]
    if rng.random() < 0.5:  # arms beside the body
        parts += [part(side * 205, 20, 300, (32, 34, 400), 45) for side in (-1, 1)]
    z_mm = rng.uniform(0, TRUNK_STEP_MM) + TRUNK_STEP_MM * np.arange(TRUNK_SLICES)
    return Scan(
        name="trunk",
        parts=tuple(parts),
        warp=_warp(rng, 6.0),
        scanner=_scanner(rng, field_mm=(360, 620), noise=2.0),
        z_mm=z_mm,
        bleed=(None,) * TRUNK_SLICES,
        region=tuple(REGIONS[int(np.searchsorted(BORDERS_MM, z))] for z in z_mm),
    )


def _scanner(rng: Generator, *, field_mm: tuple[float, float], noise: float) -> Scanner:
    sharp = rng.random() < 0.4
    return Scanner(
        pixel_mm=float(rng.uniform(*field_mm)) / MATRIX,
        noise_hu=float(rng.uniform(*NOISE_HU)) * noise * (1.5 if sharp else 1.0),
        blur_mm=0.9 if sharp else 1.8,
        kernel="SHARP" if sharp else "SOFT",
        offset_mm=(float(rng.normal(0, OFFSET_MM)), float(rng.normal(0, OFFSET_MM))),
    )


def _warp(rng: Generator, shift_mm: float) -> Warp:
    first, second = rng.normal(0, shift_mm, size=2)
    one, two = rng.uniform(120, 260, size=2)
    here, there = rng.uniform(0, 2 * np.pi, size=2)
    return Warp(
        (float(first), float(second)), (float(one), float(two)), (float(here), float(there))
    )


def _in_disc(rng: Generator, rx: float, ry: float) -> tuple[float, float]:
    radius, angle = np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    return float(rx * radius * np.cos(angle)), float(ry * radius * np.sin(angle))


def _splits(patients: list[Patient], seed: int) -> list[str]:
    """A split for every patient, patients with and without a bleed dealt alike."""
    split_of: dict[int, str] = {}
    for bleeds in (True, False):
        group = [patient.number for patient in patients if patient.bleeds is bleeds]
        order = stream(seed, "phantom", "split", int(bleeds)).permutation(group)
        ends = np.cumsum([SHARES[name] for name in SHARES])
        for place, number in enumerate(order):
            side = int(np.searchsorted(ends, (place + 0.5) / len(order)))
            split_of[int(number)] = list(SHARES)[min(side, len(SHARES) - 1)]
    return [split_of[patient.number] for patient in patients]


def _write_patient(
    folder: Path, patient: Patient, seed: int, matrix: int
) -> Iterator[list[object]]:
    """Write the patient's files; the rows of `labels.csv` without the split."""
    name = f"PHANTOM-{patient.number:04d}"
    for scan in patient.scans:
        series = generate_uid(entropy_srcs=[str(seed), name, scan.name])
        with disk_errors(folder):
            (folder / name / scan.name).mkdir(parents=True)
        rng = stream(seed, "phantom", "noise", patient.number, scan.name)
        for place, z in enumerate(scan.z_mm):
            file = Path(name) / scan.name / f"{place:03d}.dcm"
            header = _dicom(patient, scan, place, series, matrix=matrix, seed=seed)
            stored = render(scan, place, rng, matrix=matrix) - INTERCEPT
            header.PixelData = stored.astype("<u2").tobytes()
            with disk_errors(folder / file):
                header.save_as(folder / file, enforce_file_format=True)
            bleed = scan.bleed[place]
            yield [
                file.as_posix(), name, series, round(float(z), 3),
                "" if bleed is None else bleed, scan.region[place],
            ]  # fmt: skip


def _dicom(
    patient: Patient, scan: Scan, place: int, series: str, *, matrix: int, seed: int
) -> Dataset:
    """The header of one slice (CT Image IOD, DICOM PS3.3 A.3), without pixels."""
    name = f"PHANTOM-{patient.number:04d}"
    pixel = scan.scanner.pixel_mm * MATRIX / matrix
    corner = -(matrix - 1) / 2 * pixel
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(place)])
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.PatientID, ds.PatientName, ds.PatientBirthDate = name, f"Phantom^{patient.number}", ""
    ds.PatientSex, ds.PatientAge = patient.sex, f"{patient.age:03d}Y"
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[str(seed), name])
    ds.SeriesInstanceUID = series
    ds.StudyDate, ds.Modality, ds.Manufacturer = "20200101", "CT", "hounsfield phantom"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesNumber = patient.scans.index(scan) + 1
    ds.BodyPartExamined = scan.name.upper()
    ds.ConvolutionKernel = scan.scanner.kernel
    ds.SliceThickness = f"{THICKNESS_MM:.1f}"
    ds.KVP = "120"
    ds.PatientPosition = "HFS"
    from_feet = patient.number % 2  # so that neither number nor name gives the order away
    ds.InstanceNumber = place + 1 if from_feet else len(scan.z_mm) - place
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [f"{corner:.4f}", f"{corner:.4f}", f"{scan.z_mm[place]:.3f}"]
    ds.FrameOfReferenceUID = ds.StudyInstanceUID
    ds.PixelSpacing = [f"{pixel:.5f}", f"{pixel:.5f}"]
    ds.Rows = ds.Columns = matrix
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(INTERCEPT), "1", "HU"
    return ds


def _csv(header: list[str], rows: list[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
