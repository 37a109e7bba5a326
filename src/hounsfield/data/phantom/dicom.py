"""A patient's scans as DICOM files, a file a slice."""

from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from hounsfield.data.phantom.patient import Patient
from hounsfield.data.phantom.scan import INTERCEPT, MATRIX, THICKNESS_MM, Scan, render
from hounsfield.files import disk_errors
from hounsfield.seeding import stream


def write_patient(
    folder: Path, patient: Patient, *, seed: int, matrix: int
) -> Iterator[list[object]]:
    """Write the patient's files; a row for each: file, patient, series, z_mm, bleed, region.

    Raises:
        DiskError: The disk is full or not writable.
    """
    for scan in patient.scans:
        series = generate_uid(entropy_srcs=[str(seed), patient.name, scan.name])
        with disk_errors(folder):
            (folder / patient.name / scan.name).mkdir(parents=True)
        rng = stream(seed, "phantom", "noise", patient.number, scan.name)
        for place, z in enumerate(scan.z_mm):
            file = Path(patient.name) / scan.name / f"{place:03d}.dcm"
            header = _header(patient, scan, place, series, matrix=matrix, seed=seed)
            stored = render(scan, place, rng, matrix=matrix) - INTERCEPT
            header.PixelData = stored.astype("<u2").tobytes()
            with disk_errors(folder / file):
                header.save_as(folder / file, enforce_file_format=True)
            bleed = scan.bleed[place]
            yield [
                file.as_posix(), patient.name, series, round(float(z), 3),
                "" if bleed is None else bleed, scan.region[place],
            ]  # fmt: skip


def _header(
    patient: Patient, scan: Scan, place: int, series: str, *, matrix: int, seed: int
) -> Dataset:
    """The header of one slice (CT Image IOD, DICOM PS3.3 A.3), without pixels."""
    pixel = scan.scanner.pixel_mm * MATRIX / matrix
    corner = -(matrix - 1) / 2 * pixel
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(place)])
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.PatientID, ds.PatientName = patient.name, f"Phantom^{patient.number}"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "", patient.sex, f"{patient.age:03d}Y"
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[str(seed), patient.name])
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
