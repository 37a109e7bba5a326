"""DICOM headers: what is known of a slice before its pixels are read, or why it is not for us.

Everything is decided by what the header says (DICOM PS3.3 C.7.6.2, C.8.2.1; enhanced CT
C.7.6.16), nothing by names.
"""

import io
import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from hounsfield.data.archive import Entry
from hounsfield.data.readers.codestream import inflated_is_sane, is_deflated
from hounsfield.data.readers.dicom_facts import code, facts_of, kernel_of
from hounsfield.data.readers.dicom_values import Values, many
from hounsfield.data.series import Header, across
from hounsfield.errors import NotForUsError, ReadError

HEAD_BYTES = 2**16  # most headers are shorter; for the others the whole file is read
MAX_TILT_DEG = 35.0  # gantries tilt to 30; more is a reformat
_NOT_AXIAL_KINDS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SCREEN SAVE", "DOSE_INFO", "MIP", "MINIP"}
_CT_CLASSES = {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
_RESCALE_TYPES = {"", "HU", "US", "HU_MOD"}


def read_headers(entry: Entry) -> list[Header]:
    """The slices that a file holds: one, or a frame each.

    Raises:
        NotForUsError: It is sound and no axial CT image in HU.
        ReadError: It is not readable, or lacks what CT must have.
    """
    try:
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")  # what pydicom finds odd but reads
            return _headers(entry)
    except ReadError:
        raise
    except InvalidDicomError:
        raise NotForUsError("no DICOM file") from None
    except Exception as error:  # a broken header can fail anywhere in the parser
        raise ReadError(f"its header is broken ({type(error).__name__})") from None


def _headers(entry: Entry) -> list[Header]:
    parsed, rest, at = _before_pixels(entry)
    ds, meta = Values(parsed), getattr(parsed, "file_meta", Dataset())
    if "SOPClassUID" not in ds and "MediaStorageSOPClassUID" not in meta:
        raise NotForUsError("no DICOM image")
    _check_kind(ds)
    _check_pixels(ds)
    if int(ds.get("NumberOfFrames") or 1) == 1 and "PerFrameFunctionalGroupsSequence" not in ds:
        pixels_at = _pixels_at(ds, meta, rest, at, n_bytes=entry.n_bytes)
        return [_header(entry, ds, ds, ds, ds, frame=0, pixels_at=pixels_at)]
    return _frames(entry, ds)


def _before_pixels(entry: Entry) -> tuple[Dataset, bytes, int]:
    """The data set before its pixels, the bytes that follow it, and where they begin.

    Of plain files the head alone is read, if it holds all that comes before the pixels.
    """
    data = entry.read(HEAD_BYTES)
    if is_deflated(data):
        data = entry.read()
        if not inflated_is_sane(data):
            raise ReadError("unpacks to more than any CT holds")
        return _parsed(data)
    if len(data) < entry.n_bytes:
        with suppress(Exception):  # a header that is cut here can fail anywhere in the parser
            ds, rest, at = _parsed(data)
            if rest:
                return ds, rest, at
        data = entry.read()
    return _parsed(data)


def _parsed(data: bytes) -> tuple[Dataset, bytes, int]:
    file = io.BytesIO(data)
    ds = dcmread(file, force=True, stop_before_pixels=True)
    at = file.tell()
    return ds, data[at : at + 12], at


def _check_kind(ds: Values) -> None:
    modality = str(ds.get("Modality", ""))
    if ds.get("SOPClassUID") not in _CT_CLASSES and modality != "CT":
        raise NotForUsError(f"no CT image (modality {code(modality) or 'unknown'})")
    if ds.get("SOPClassUID", CTImageStorage) not in _CT_CLASSES:
        raise NotForUsError("no CT image object (a secondary capture, report or the like)")
    if modality not in ("", "CT"):
        raise NotForUsError(f"no CT image (modality {code(modality) or 'unknown'})")
    kinds = {str(value).upper() for value in many(ds.get("ImageType"))}
    for kind in sorted(kinds & _NOT_AXIAL_KINDS):
        raise NotForUsError(f"image type {kind}")


def _check_pixels(ds: Values) -> None:
    if not ds.get("Rows") or not ds.get("Columns"):
        raise NotForUsError("no pixels")
    if int(ds.get("SamplesPerPixel") or 1) != 1:
        raise NotForUsError("a colour picture, not HU")
    if not str(ds.get("PhotometricInterpretation", "MONOCHROME2")).startswith("MONOCHROME"):
        raise NotForUsError("a colour picture, not HU")
    if ds.get("BitsAllocated") not in (8, 16, 32):
        raise ReadError(f"{ds.get('BitsAllocated')} bits a pixel; 8, 16 or 32 are read")


def _frames(entry: Entry, ds: Values) -> list[Header]:
    """A header a frame, from the functional groups of an enhanced CT image (PS3.3 C.7.6.16)."""
    frames = ds.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        raise ReadError("several frames without functional groups; their positions are unknown")
    if len(frames) != int(ds.get("NumberOfFrames") or 1):
        raise ReadError(f"{ds.get('NumberOfFrames')} frames with {len(frames)} functional groups")
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]

    def item(frame: Dataset, name: str) -> Dataset:
        sequence = frame.get(name) or shared.get(name)
        return sequence[0] if sequence else Dataset()

    headers = []
    for number, frame in enumerate(frames):
        kinds = {
            str(kind) for kind in many(item(frame, "CTImageFrameTypeSequence").get("FrameType"))
        }
        if kinds & _NOT_AXIAL_KINDS:
            continue
        place = Dataset()
        place.update(item(frame, "PlanePositionSequence"))
        place.update(item(frame, "PlaneOrientationSequence"))
        header = _header(
            entry,
            ds,
            place,
            item(frame, "PixelMeasuresSequence"),
            item(frame, "PixelValueTransformationSequence"),
            frame=number,
        )
        kernel = item(frame, "CTReconstructionSequence").get("ConvolutionKernel")
        phase = item(frame, "FrameContentSequence").get("TemporalPositionIndex") or 0
        headers.append(
            replace(
                header,
                phase=(header.phase[0], int(phase)),
                number=number + 1,
                facts=replace(header.facts, kernel=kernel_of(kernel) or header.facts.kernel),
            )
        )
    return headers


def _header(
    entry: Entry,
    ds: Values,
    place: Values | Dataset,
    measures: Values | Dataset,
    transform: Values | Dataset,
    *,
    frame: int,
    pixels_at: int | None = None,
) -> Header:
    axes = _numbers(place.get("ImageOrientationPatient"), 6, "image orientation")
    position = _numbers(place.get("ImagePositionPatient"), 3, "image position")
    pixel_mm = _numbers(measures.get("PixelSpacing"), 2, "pixel spacing")
    slope, intercept = _rescale(transform)
    if min(pixel_mm) <= 0:
        raise ReadError("a pixel spacing that is not positive")
    normal = _axial_normal(axes)
    allocated, bits, signed = _stored(ds)
    return Header(
        entry=entry,
        frame=frame,
        patient=str(ds.get("PatientID") or "").strip(),
        study=str(ds.get("StudyInstanceUID") or ""),
        series=str(ds.get("SeriesInstanceUID") or ""),
        sop=str(ds.get("SOPInstanceUID") or entry.name),
        shape=(int(ds.get("Rows")), int(ds.get("Columns"))),
        axes=axes,
        along_mm=_dot(normal, position),
        pixel_mm=(pixel_mm[0], pixel_mm[1]),
        slope=slope,
        intercept=intercept,
        padding=_padding(ds, bits, signed=signed),
        stored=(allocated, bits, signed),
        pixels_at=pixels_at,
        phase=(
            _integer(ds.get("AcquisitionNumber")),
            _integer(ds.get("TemporalPositionIdentifier")),
        ),
        number=_integer(ds.get("InstanceNumber")),
        facts=facts_of(ds),
    )


def _rescale(transform: Values | Dataset) -> tuple[float, float]:
    """Slope and intercept to HU."""
    (intercept,) = _numbers(transform.get("RescaleIntercept"), 1, "rescale intercept")
    slope = float(transform.get("RescaleSlope") or 1)
    if not math.isfinite(slope) or slope == 0:
        raise ReadError(f"a rescale slope of {slope}")
    if str(transform.get("RescaleType", "")).upper() not in _RESCALE_TYPES:
        raise NotForUsError("its values are no HU (by its rescale type)")
    return slope, intercept


def _stored(ds: Values) -> tuple[int, int, bool]:
    """Bits allocated, bits stored, and whether they are signed."""
    allocated = int(ds.get("BitsAllocated"))
    bits = int(ds.get("BitsStored") or allocated)
    if not 1 <= bits <= allocated:
        raise ReadError(f"{bits} bits stored in {allocated}")
    return allocated, bits, bool(ds.get("PixelRepresentation", 0))


def _axial_normal(axes: tuple[float, ...]) -> tuple[float, float, float]:
    row, column = axes[:3], axes[3:]
    lengths = math.hypot(*row), math.hypot(*column)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(_dot(row, column)) > 0.01:
        raise ReadError("an image orientation that is no pair of perpendicular unit vectors")
    normal = across(axes)
    if normal[2] < math.cos(math.radians(MAX_TILT_DEG)):
        plane = "sagittal" if abs(normal[0]) > abs(normal[1]) else "coronal"
        raise NotForUsError(f"not axial ({plane} or oblique)")
    return normal


def _padding(ds: Values, bits: int, *, signed: bool) -> tuple[int, int] | None:
    """The stored values that mean "nothing was measured here" (PS3.3 C.7.5.1.1.2)."""
    value = ds.get("PixelPaddingValue")
    if value is None:
        return None
    limit = ds.get("PixelPaddingRangeLimit")
    ends = [_as_stored(int(end), bits, signed=signed) for end in (value, limit) if end is not None]
    return min(ends), max(ends)


def _as_stored(value: int, bits: int, *, signed: bool) -> int:
    """`value` in the pixels' own representation, whichever of US and SS the header used."""
    if signed and value >= 2 ** (bits - 1):
        return value - 2 ** (16 if value >= 2**bits else bits)
    return value % 2**16 if not signed and value < 0 else value


def _pixels_at(ds: Values, meta: Dataset, element: bytes, at: int, *, n_bytes: int) -> int | None:
    """The offset of plain 16-bit little-endian pixels; None where a decoder must be asked.

    `element` are the bytes that follow the header, which begin `at` that byte.

    Raises:
        ReadError: The file ends before the pixels do.
    """
    syntax = meta.get("TransferSyntaxUID")
    if int(ds.get("BitsAllocated")) != 16 or element[:4] != b"\xe0\x7f\x10\x00":
        return None
    if syntax == ExplicitVRLittleEndian and element[4:6] in (b"OW", b"OB"):
        start, length = at + 12, int.from_bytes(element[8:12], "little")
    elif syntax == ImplicitVRLittleEndian:
        start, length = at + 8, int.from_bytes(element[4:8], "little")
    else:
        return None
    wanted = 2 * int(ds.get("Rows")) * int(ds.get("Columns"))
    if length < wanted or n_bytes < start + wanted:
        raise ReadError(
            f"its pixels are cut short: {min(length, max(n_bytes - start, 0))} of {wanted} bytes"
        )
    return start


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _numbers(value: Any, count: int, what: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(one) for one in many(value))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ReadError(f"no {what}" if value in (None, "") else f"a broken {what}")
    return numbers


def _integer(value: Any) -> int:
    try:
        return int(value or 0)
    except (TypeError, ValueError):
        return 0
