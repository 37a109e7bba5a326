"""How long ingest takes against pydicom alone, what a second worker brings, how much memory it has.

    python benchmarks/ingest.py [--slices N] [--matrix PX] [--rounds N] [FOLDER]

Without FOLDER it writes its own archive: uncompressed CT of 512 x 512, 32 slices a series, many
patients. With one, it reads the DICOM files there. Against ingest, with all that it does, stand
pydicom that reads and decodes every file to stored values, and pydicom that goes on to HU. Each
is a process of its own and pays for its start; ingest's is also told alone, as the time that one
slice takes. All run in turns, and a figure is the median of the rounds. The disk's cache is warm.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SERIES = 32  # slices


@dataclass(frozen=True)
class Cost:
    """Seconds on the wall, seconds of all processors, MiB of the parent and the largest worker."""

    wall_s: float
    cpu_s: float
    peak_mib: float = 0.0


def main() -> None:
    """Time pydicom alone and ingest with one and two workers in turns; print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--slices", type=int, default=4096)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        folder = options.folder or write(here / "archive", options.slices, options.matrix)
        lone = write(here / "lone", 1, options.matrix)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for path in files:
            path.read_bytes()
        ways: dict[str, Callable[[], Cost]] = {
            "pydicom": lambda: pydicom_alone(folder, "stored"),
            "pydicom to HU": lambda: pydicom_alone(folder, "hu"),
            "start": lambda: ingest(lone, options.size, 1),
            "one worker": lambda: ingest(folder, options.size, 1),
            "two workers": lambda: ingest(folder, options.size, 2),
        }
        rounds = [{name: way() for name, way in ways.items()} for _ in range(options.rounds)]
        print(f"{len(files)} files, {options.rounds} rounds, load {os.getloadavg()[0]:.1f}")
        _report(rounds, len(files))
        if options.folder is None:
            quarter = write(here / "quarter", options.slices // 4, options.matrix)
            small = ingest(quarter, options.size, 1).peak_mib
            flat = rounds[0]["one worker"].peak_mib / small
            print(f"ingest_peak_over_that_of_a_quarter: {flat:.2f}")


def _report(rounds: list[dict[str, Cost]], files: int) -> None:
    wall = {name: [one[name].wall_s for one in rounds] for name in rounds[0]}
    cpu = {name: [one[name].cpu_s for one in rounds] for name in rounds[0]}
    for name in rounds[0]:
        wall_s, cpu_s = statistics.median(wall[name]), statistics.median(cpu[name])
        print(f"{name:<14} {wall_s:6.2f} s wall {cpu_s:6.2f} s CPU {files / wall_s:6.0f} files/s")
    for name in ("pydicom", "pydicom to HU"):
        in_wall, in_cpu = (
            _ratio(wall["one worker"], wall[name]),
            _ratio(cpu["one worker"], cpu[name]),
        )
        label = name.replace(" ", "_").lower()
        print(
            f"ingest_one_worker_over_{label}: {in_wall:.2f} in wall time, {in_cpu:.2f} in CPU time"
        )
    print(f"ingest_start: {statistics.median(wall['start']):.2f} s")
    print(f"ingest_two_workers_speedup: {_ratio(wall['one worker'], wall['two workers']):.2f}")
    peak = max(one[way].peak_mib for one in rounds for way in ("one worker", "two workers"))
    print(f"ingest_peak_memory: {peak:.0f} MiB (the parent and its largest worker)")


def _ratio(over: list[float], under: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


ALONE = """
import sys
import pydicom
from pathlib import Path
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_rescale
for path in sorted(path for path in Path(sys.argv[1]).rglob("*") if path.is_file()):
    try:
        ds = pydicom.dcmread(path)
        pixels = ds.pixel_array
        if sys.argv[2] == "hu":
            apply_rescale(pixels, ds)
    except (InvalidDicomError, AttributeError, ValueError):
        continue  # no image, or a broken one
"""
INGEST = """
import sys
from hounsfield.cli import app
app(sys.argv[1:], standalone_mode=False)
"""
USED = """
import resource
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(one.ru_utime + one.ru_stime for one in used), sum(one.ru_maxrss for one in used) / 1024)
"""


def pydicom_alone(folder: Path, want: str) -> Cost:
    """Read and decode every file, and rescale it where HU are asked for; nothing else."""
    return cost_of(ALONE, str(folder), want)


def ingest(folder: Path, size: int, workers: int) -> Cost:
    """What `hounsfield ingest` of `folder` costs."""
    with tempfile.TemporaryDirectory() as scratch:
        words = ["--out", f"{scratch}/store", "--size", str(size), "--workers", str(workers)]
        return cost_of(INGEST, "ingest", str(folder), *words, "--keep-ids")


def cost_of(program: str, *words: str) -> Cost:
    """A process of its own, with its start."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program + USED, *words], check=True, capture_output=True, text=True
    )
    wall_s = time.perf_counter() - start
    cpu_s, peak_mib = map(float, done.stdout.splitlines()[-1].split())
    return Cost(wall_s, cpu_s, peak_mib)


def write(folder: Path, slices: int, matrix: int) -> Path:
    """An archive of uncompressed CT: noise around a disc, `SERIES` slices a patient."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:matrix, :matrix] - matrix / 2
    disc = np.where(np.hypot(x, y) < matrix / 3, 1064, 24).astype(np.int16)
    for number in range(slices):
        patient, place = divmod(number, SERIES)
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.PatientID, ds.Modality = f"p{patient}", "CT"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.{patient}", f"1.2.{patient}.1"
        ds.ImageType, ds.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], place
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-180.0, -180.0, 5.0 * place]
        ds.PixelSpacing = [0.7, 0.7]
        ds.Rows = ds.Columns = matrix
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        noise = rng.integers(-20, 21, disc.shape, dtype=np.int16)
        ds.PixelData = (disc + noise).astype("<u2").tobytes()
        path = folder / f"p{patient}" / f"{place:03d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        ds.save_as(path, enforce_file_format=True)
    return folder


if __name__ == "__main__":
    main()
