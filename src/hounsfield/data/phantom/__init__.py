"""Synthetic CT written as real DICOM, with labels: data for the demo and the tests.

A phantom shows that the machinery works. It is no evidence about real scans.

Every patient has a head series (5 mm slices, edge to edge) and a trunk series (5 mm slices, far
apart). Bodies are ellipsoids in a patient's own size, pose and warp, painted in HU with partial
volume, blurred by a kernel, under scanner noise.

Task `bleed`: a fresh bleed in a head slice. It lies anywhere, so the level tells nothing; falx,
calcifications and venous blood are bright as well, in everybody. Trunk slices have no such label.
Task `region`: the body level of any slice. Organs stand higher or lower in every patient than the
borders between the levels, so slices near a border stay uncertain.

A `patient` is drawn: a `head` and a `trunk`, out of the parts of a `body`. A `scan` shows slices of
it, and `dicom` writes them.
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hounsfield.data.phantom.dicom import write_patient
from hounsfield.data.phantom.head import HEAD_SLICES
from hounsfield.data.phantom.patient import Patient, draw_patient
from hounsfield.data.phantom.scan import MATRIX
from hounsfield.data.phantom.trunk import TRUNK_SLICES
from hounsfield.errors import ConfigError
from hounsfield.files import check_space, write_text
from hounsfield.lock import new_folder
from hounsfield.seeding import stream

SHARES = {"train": 0.5, "val": 0.15, "test": 0.35}  # of the patients
HEADER_BYTES = 2048  # of a file, about


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
            for row in write_patient(folder, patient, seed=seed, matrix=matrix):
                rows.append([*row, split])
            advance()
        header = ["file", "patient", "series", "z_mm", "bleed", "region", "split"]
        write_text(folder / "labels.csv", _csv(header, rows))
    return out / "labels.csv"


def _splits(patients: list[Patient], seed: int) -> list[str]:
    """A split for every patient, patients with and without a bleed dealt alike."""
    split_of: dict[int, str] = {}
    for bleeds in (True, False):
        group = [patient.number for patient in patients if patient.bleeds is bleeds]
        order = stream(seed, "phantom", "split", int(bleeds)).permutation(group)
        ends = np.cumsum(list(SHARES.values()))
        for place, number in enumerate(order):
            side = int(np.searchsorted(ends, (place + 0.5) / len(order)))
            split_of[int(number)] = list(SHARES)[min(side, len(SHARES) - 1)]
    return [split_of[patient.number] for patient in patients]


def _csv(header: list[str], rows: list[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
