"""How long ingest takes against pydicom alone, what a second worker brings, how much memory it has.

    python benchmarks/ingest.py [--slices N] [--matrix PX] [FOLDER]

Without FOLDER it writes its own archive: uncompressed CT of 512 x 512, 32 slices a series, many
patients. With one, it reads the DICOM files there. Rates are of one run on one machine; the ratios
are what to compare; on a busy machine, those of CPU time.
The disk's cache is warmed before anything is timed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

SERIES = 32  # slices


@dataclass(frozen=True)
class Cost:
    """Seconds on the wall, seconds of all processors, MiB of the largest process."""

    wall_s: float
    cpu_s: float
    peak_mib: float = 0.0


def main() -> None:
    """Time pydicom alone and ingest with one and two workers; print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--slices", type=int, default=640)
    parser.add_argument("--matrix", type=int, default=512)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        folder = options.folder or write(here / "a", options.slices, options.matrix)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for path in files:
            path.read_bytes()
        alone = pydicom_alone(files)
        one = ingest(folder, here / "store1", options.size, 1)
        two = ingest(folder, here / "store2", options.size, 2)
        print(f"{len(files)} files, stored at {options.size} px, load {os.getloadavg()[0]:.1f}")
        for name, cost in (("pydicom alone", alone), ("one worker", one), ("two workers", two)):
            print(
                f"{name:<22} {cost.wall_s:7.2f} s wall {cost.cpu_s:7.2f} s CPU "
                f"{len(files) / cost.wall_s:6.0f} files/s  peak {cost.peak_mib:5.0f} MiB"
            )
        print(f"one worker / pydicom   wall {one.wall_s / alone.wall_s:.2f}, CPU "
              f"{one.cpu_s / alone.cpu_s:.2f} (at most 2)")  # fmt: skip
        print(f"one worker / two       wall {one.wall_s / two.wall_s:.2f} (at least 1.5)")
        if options.folder is None:
            quarter = write(here / "b", options.slices // 4, options.matrix)
            small = ingest(quarter, here / "store_quarter", options.size, 1)
            print(f"peak / peak of a quarter of the archive  {one.peak_mib / small.peak_mib:.2f}")


def pydicom_alone(files: list[Path]) -> Cost:
    """Read and decode every file, nothing else."""
    wall, cpu = time.perf_counter(), time.process_time()
    for path in files:
        try:
            _ = pydicom.dcmread(path).pixel_array
        except (InvalidDicomError, AttributeError, ValueError):
            continue  # no image, or a broken one
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def ingest(folder: Path, out: Path, size: int, workers: int) -> Cost:
    """A fresh process that ingests `folder`; its own start is part of the cost."""
    script = out.parent / "run.py"
    script.write_text(
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from hounsfield.data.ingest import ingest\n"
        "if __name__ == '__main__':\n"
        "    source, out, size, workers = sys.argv[1:]\n"
        "    ingest([Path(source)], Path(out), size=int(size), workers=int(workers),"
        " keep_ids=True)\n"
        "    used = [resource.getrusage(who) for who in"
        " (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
        "    print(sum(one.ru_utime + one.ru_stime for one in used),"
        " max(one.ru_maxrss for one in used) / 1024)\n"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(out), str(size), str(workers)],
        check=True,
        capture_output=True,
        text=True,
    )
    cpu_s, peak_mib = map(float, done.stdout.split())
    return Cost(time.perf_counter() - start, cpu_s, peak_mib)


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
