"""DICOM CT to volumes: headers first, then series by geometry, then pixels.

Everything is decided by headers (DICOM PS3.3 C.7.6.2, C.8.2.1; enhanced CT C.7.6.16), nothing by
names or by the order of files.
"""

import hashlib
import io
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
)

from hounsfield.data.archive import Entry
from hounsfield.data.codestream import codestream_shape, inflated_is_sane
from hounsfield.data.volume import (
    MAX_VOXELS,
    Announce,
    Facts,
    Refusal,
    Refuse,
    Status,
    Volume,
    hu,
)
from hounsfield.errors import NotForUsError, ReadError

MAX_TILT_DEG = 35.0  # gantries tilt to 30; more is a reformat
TILT_SAID_DEG = 0.5
SAME_MM = 0.01  # positions closer than this are one
GAP = 1.5  # times the usual distance between slices
_NOT_AXIAL_KINDS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SCREEN SAVE", "DOSE_INFO", "MIP", "MINIP"}
_CT_CLASSES = {CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage}
_GUESSES: Mapping[tuple[bool | None, bool | None], UID] = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""The transfer syntax of a file that does not say, by (implicit, little endian)."""
_RESCALE_TYPES = {"", "HU", "US", "HU_MOD"}
_VENDORS = (
    "GE", "Siemens", "Philips", "Toshiba", "Canon", "Hitachi", "Fujifilm", "Neusoft", "Shimadzu",
    "Picker", "Imatron", "Samsung", "Mediso", "NeuroLogica", "United Imaging", "hounsfield",
)  # fmt: skip

_TAGS = [
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality",
    "Manufacturer", "PatientID", "PatientSex", "PatientAge", "ContrastBolusAgent",
    "ConvolutionKernel", "StudyInstanceUID", "SeriesInstanceUID", "AcquisitionNumber",
    "InstanceNumber", "TemporalPositionIdentifier", "ImagePositionPatient",
    "ImageOrientationPatient", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames",
    "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleIntercept",
    "RescaleSlope", "RescaleType", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of one slice (a file, or a frame of one) before its pixels are read.

    Attributes:
        entry, frame: Where it lies.
        patient, study, series, sop: Identities.
        shape: Rows and columns.
        axes: Row and column direction, six cosines.
        position_mm: Of the first pixel's centre, `(x, y, z)`.
        pixel_mm: Spacing `(y, x)`.
        slope, intercept, padding: Of the rescale to HU; padding in stored values.
        stored: Bits allocated, bits stored, signed.
        pixels_at: Byte offset of plain little-endian 16-bit pixels; None where a decoder is needed.
        phase: What tells repeated passes over the same positions apart.
        number: The instance's (or frame's) own number.
        facts: What the header says and that names nobody.
    """

    entry: Entry
    frame: int
    patient: str
    study: str
    series: str
    sop: str
    shape: tuple[int, int]
    axes: tuple[float, ...]
    position_mm: tuple[float, float, float]
    pixel_mm: tuple[float, float]
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    stored: tuple[int, int, bool]
    pixels_at: int | None
    phase: tuple[int, int]
    number: int
    facts: Facts

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slice, towards the head."""
        across = np.cross(self.axes[:3], self.axes[3:])
        return across * (np.sign(across[2]) or 1.0) / np.linalg.norm(across)

    @property
    def along_mm(self) -> float:
        """Position along the normal."""
        return float(np.dot(self.normal, self.position_mm))


def read_headers(entry: Entry) -> list[Header]:
    """The slices that a file holds: one, or a frame each.

    Raises:
        NotForUsError: It is sound and no axial CT image in HU.
        ReadError: It is not readable, or lacks what CT must have.
    """
    data = entry.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what pydicom finds odd but reads
            return _headers(entry, data)
    except ReadError:
        raise
    except InvalidDicomError:
        raise NotForUsError("no DICOM file") from None
    except Exception as error:  # a broken header can fail anywhere in the parser
        raise ReadError(f"its header is broken ({type(error).__name__})") from None


def group(headers: Iterable[Header], refuse: Refuse) -> list[tuple[Header, ...]]:
    """Slices that form volumes: each from feet to head, every position once.

    A group shares patient, series, orientation, spacing, kernel and matrix. Copies and second
    slices at one position are refused as duplicates, unless the series passes over its positions
    several times: then each pass is a group.
    """
    together: dict[tuple[object, ...], list[Header]] = defaultdict(list)
    seen: dict[tuple[str, int], str] = {}
    for header in headers:
        first = seen.setdefault((header.sop, header.frame), header.entry.name)
        if first != header.entry.name:
            refuse(Refusal(header.entry.name, "duplicate", f"the same image as {first}"))
            continue
        together[_same(header)].append(header)
    groups: list[tuple[Header, ...]] = []
    parts: Counter[tuple[str, str]] = Counter()
    for slices in together.values():
        slices.sort(key=lambda one: (one.along_mm, one.number, one.entry.name))
        for one_pass in _passes(slices):
            kept = _once_each(one_pass, refuse)
            parts[kept[0].study, kept[0].series] += 1
            part = parts[kept[0].study, kept[0].series]
            groups.append(kept if part == 1 else _renamed(kept, part))
    return groups


def read(headers: Sequence[Header], refuse: Refuse, announce: Announce) -> Iterator[Volume]:
    """The volume of one group, without the slices that cannot be read; nothing if none can."""
    height, width = headers[0].shape
    if len(headers) * height * width > MAX_VOXELS:
        reason = f"{len(headers)} slices of {height} x {width}: larger than any CT"
        for header in headers:
            refuse(Refusal(header.entry.name, "refused", reason))
        return
    voxels = np.empty((len(headers), height, width), dtype=np.int16)
    kept: list[Header] = []
    sources: list[str] = []
    opened = _Opened()
    for header in headers:
        announce(header.entry.name)
        try:
            content = opened.content(header)
            voxels[len(kept)] = hu(
                _stored(header, content, opened),
                slope=header.slope,
                intercept=header.intercept,
                padding=header.padding,
            )
        except ReadError as error:
            refuse(_refusal(header, "refused", str(error)))
            continue
        kept.append(header)
        sources.append(hashlib.sha256(opened.digest + header.frame.to_bytes(4)).hexdigest())
    if not kept:
        return
    first = kept[0]
    along = np.array([header.along_mm for header in kept])
    step, notes = _steps(along)
    voxels, pixel_mm = _upright(voxels[: len(kept)], first)
    tilt = np.degrees(np.arccos(np.clip(abs(first.normal[2]), 0, 1)))
    if tilt > TILT_SAID_DEG:
        notes.append(f"gantry tilt of {tilt:.1f} degrees, left as it is")
    yield Volume(
        voxels=voxels,
        units="hu",
        spacing_mm=(step, *pixel_mm),
        z_mm=along,
        patient=first.patient,
        study=first.study,
        series=first.series,
        files=tuple(header.entry.name for header in kept),
        sources=tuple(sources),
        numbers=tuple(header.number for header in kept),
        facts=first.facts,
        notes=tuple(notes),
    )


# ---------------------------------------------------------------------------------------- headers


def _headers(entry: Entry, data: bytes) -> list[Header]:
    if not inflated_is_sane(data):
        raise ReadError("unpacks to more than any CT holds")
    file = io.BytesIO(data)
    ds = dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
    meta = getattr(ds, "file_meta", Dataset())
    if "SOPClassUID" not in ds and "MediaStorageSOPClassUID" not in meta:
        raise NotForUsError("no DICOM image")
    _check_kind(ds)
    _check_pixels(ds)
    if int(ds.get("NumberOfFrames") or 1) == 1 and "PerFrameFunctionalGroupsSequence" not in ds:
        header = _header(entry, ds, ds, ds, ds, frame=0)
        return [replace(header, pixels_at=_pixels_at(ds, meta, data, file.tell()))]
    return _frames(entry, ds)


def _check_kind(ds: Dataset) -> None:
    modality = str(ds.get("Modality", ""))
    if ds.get("SOPClassUID") not in _CT_CLASSES and modality != "CT":
        raise NotForUsError(f"no CT image (modality {_word(modality) or 'unknown'})")
    if ds.get("SOPClassUID", CTImageStorage) not in _CT_CLASSES:
        raise NotForUsError("no CT image object (a secondary capture, report or the like)")
    if modality not in ("", "CT"):
        raise NotForUsError(f"no CT image (modality {_word(modality) or 'unknown'})")
    kinds = {str(value).upper() for value in _many(ds.get("ImageType"))}
    for kind in sorted(kinds & _NOT_AXIAL_KINDS):
        raise NotForUsError(f"image type {kind}")


def _check_pixels(ds: Dataset) -> None:
    if not ds.get("Rows") or not ds.get("Columns"):
        raise NotForUsError("no pixels")
    if int(ds.get("SamplesPerPixel") or 1) != 1:
        raise NotForUsError("a colour picture, not HU")
    if not str(ds.get("PhotometricInterpretation", "MONOCHROME2")).startswith("MONOCHROME"):
        raise NotForUsError("a colour picture, not HU")
    if int(ds.BitsAllocated) not in (8, 16, 32):
        raise ReadError(f"{ds.BitsAllocated} bits a pixel; 8, 16 or 32 are read")


def _frames(entry: Entry, ds: Dataset) -> list[Header]:
    """A header a frame, from the functional groups of an enhanced CT image (PS3.3 C.7.6.16)."""
    frames = ds.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        raise ReadError("several frames without functional groups; their positions are unknown")
    if len(frames) != int(ds.get("NumberOfFrames") or 1):
        raise ReadError(f"{ds.NumberOfFrames} frames with {len(frames)} functional groups")
    shared = (ds.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]

    def item(frame: Dataset, name: str) -> Dataset:
        sequence = frame.get(name) or shared.get(name)
        return sequence[0] if sequence else Dataset()

    headers = []
    for number, frame in enumerate(frames):
        kinds = {
            str(kind) for kind in _many(item(frame, "CTImageFrameTypeSequence").get("FrameType"))
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
                facts=replace(header.facts, kernel=_kernel(kernel) or header.facts.kernel),
            )
        )
    return headers


def _header(
    entry: Entry, ds: Dataset, place: Dataset, measures: Dataset, transform: Dataset, *, frame: int
) -> Header:
    axes = _numbers(place.get("ImageOrientationPatient"), 6, "image orientation")
    position = _numbers(place.get("ImagePositionPatient"), 3, "image position")
    pixel_mm = _numbers(measures.get("PixelSpacing"), 2, "pixel spacing")
    (intercept,) = _numbers(transform.get("RescaleIntercept"), 1, "rescale intercept")
    slope = float(transform.get("RescaleSlope") or 1)
    if not np.isfinite(slope) or slope == 0:
        raise ReadError(f"a rescale slope of {slope}")
    if str(transform.get("RescaleType", "")).upper() not in _RESCALE_TYPES:
        raise NotForUsError("its values are no HU (by its rescale type)")
    if min(pixel_mm) <= 0:
        raise ReadError("a pixel spacing that is not positive")
    _check_axial(axes)
    allocated = int(ds.BitsAllocated)
    bits = int(ds.get("BitsStored") or allocated)
    if not 1 <= bits <= allocated:
        raise ReadError(f"{bits} bits stored in {allocated}")
    signed = bool(ds.get("PixelRepresentation", 0))
    return Header(
        entry=entry,
        frame=frame,
        patient=str(ds.get("PatientID") or "").strip(),
        study=str(ds.get("StudyInstanceUID") or ""),
        series=str(ds.get("SeriesInstanceUID") or ""),
        sop=str(ds.get("SOPInstanceUID") or entry.name),
        shape=(int(ds.Rows), int(ds.Columns)),
        axes=axes,
        position_mm=(position[0], position[1], position[2]),
        pixel_mm=(pixel_mm[0], pixel_mm[1]),
        slope=slope,
        intercept=intercept,
        padding=_padding(ds, bits, signed=signed),
        stored=(allocated, bits, signed),
        pixels_at=None,
        phase=(
            _integer(ds.get("AcquisitionNumber")),
            _integer(ds.get("TemporalPositionIdentifier")),
        ),
        number=_integer(ds.get("InstanceNumber")),
        facts=_facts(ds),
    )


def _check_axial(axes: tuple[float, ...]) -> None:
    row, column = np.array(axes[:3]), np.array(axes[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(row @ column) > 0.01:
        raise ReadError("an image orientation that is no pair of perpendicular unit vectors")
    across = np.cross(row, column)
    if abs(across[2]) < np.cos(np.radians(MAX_TILT_DEG)):
        plane = "sagittal" if abs(across[0]) > abs(across[1]) else "coronal"
        raise NotForUsError(f"not axial ({plane} or oblique)")


def _facts(ds: Dataset) -> Facts:
    """Vendor, kernel, contrast, sex and age, reduced to what cannot name anybody."""
    manufacturer = str(ds.get("Manufacturer") or "")
    vendor = next(
        (name for name in _VENDORS if name.lower() in manufacturer.lower()),
        "other" if manufacturer.strip() else "",
    )
    sex = str(ds.get("PatientSex") or "").strip().upper()
    age = str(ds.get("PatientAge") or "").strip().upper()
    if not re.fullmatch(r"\d{3}[DWMY]", age):
        age = ""
    elif age.endswith("Y") and int(age[:3]) > 89:
        age = "090Y"  # the oldest are few enough to be found by their age
    return Facts(
        vendor=vendor,
        kernel=_kernel(ds.get("ConvolutionKernel")),
        contrast="yes" if str(ds.get("ContrastBolusAgent") or "").strip() else "",
        sex=sex if sex in ("F", "M", "O") else "",
        age=age,
    )


def _kernel(value: Any) -> str:
    return "/".join(word for one in _many(value) if (word := _word(str(one))))


def _word(text: str) -> str:
    """`text` if it looks like a code, else nothing: free text may name somebody."""
    return text if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_+.\-]{0,15}", text) else ""


def _padding(ds: Dataset, bits: int, *, signed: bool) -> tuple[int, int] | None:
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


def _pixels_at(ds: Dataset, meta: Dataset, data: bytes, tell: int) -> int | None:
    """The offset of plain 16-bit little-endian pixels; None where a decoder must be asked."""
    syntax = meta.get("TransferSyntaxUID")
    element = data[tell : tell + 12]
    if int(ds.BitsAllocated) != 16 or element[:4] != b"\xe0\x7f\x10\x00":
        return None
    if syntax == ExplicitVRLittleEndian and element[4:6] in (b"OW", b"OB"):
        start, length = tell + 12, int.from_bytes(element[8:12], "little")
    elif syntax == ImplicitVRLittleEndian:
        start, length = tell + 8, int.from_bytes(element[4:8], "little")
    else:
        return None
    wanted = 2 * int(ds.Rows) * int(ds.Columns)
    if length < wanted or len(data) < start + wanted:
        raise ReadError(
            f"its pixels are cut short: {min(length, max(len(data) - start, 0))} of {wanted} bytes"
        )
    return start


def _numbers(value: Any, count: int, what: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(one) for one in _many(value))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not np.all(np.isfinite(numbers)):
        raise ReadError(f"no {what}" if value in (None, "") else f"a broken {what}")
    return numbers


def _integer(value: Any) -> int:
    try:
        return int(value or 0)
    except (TypeError, ValueError):
        return 0


def _many(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


# --------------------------------------------------------------------------------------- geometry


def _same(header: Header) -> tuple[object, ...]:
    return (
        header.patient,
        header.study,
        header.series,
        header.shape,
        header.facts.kernel,
        tuple(round(value, 3) + 0.0 for value in header.axes),
        tuple(round(value, 4) for value in header.pixel_mm),
    )


def _passes(slices: list[Header]) -> list[list[Header]]:
    """The passes of a series over its positions; one if its phases do not explain repeats."""
    by_phase: dict[tuple[int, int], list[Header]] = defaultdict(list)
    for header in slices:
        by_phase[header.phase].append(header)
    repeats = _has_repeats(slices)
    if not repeats or any(_has_repeats(part) for part in by_phase.values()):
        return [slices]
    return [by_phase[phase] for phase in sorted(by_phase)]


def _renamed(slices: tuple[Header, ...], part: int) -> tuple[Header, ...]:
    """The further volumes of a series have names of their own."""
    return tuple(replace(header, series=f"{header.series}#{part}") for header in slices)


def _has_repeats(slices: list[Header]) -> bool:
    return any(after.along_mm - before.along_mm < SAME_MM for before, after in pairwise(slices))


def _once_each(slices: list[Header], refuse: Refuse) -> tuple[Header, ...]:
    kept: list[Header] = []
    for header in slices:
        if kept and header.along_mm - kept[-1].along_mm < SAME_MM:
            reason = f"at the same position as {_name(kept[-1])}"
            refuse(_refusal(header, "duplicate", reason))
        else:
            kept.append(header)
    return tuple(kept)


def _steps(along: NDArray[np.float64]) -> tuple[float, list[str]]:
    """The usual distance between slices in mm (NaN for one slice), and what is odd about it."""
    if len(along) < 2:
        return float("nan"), []
    steps = np.diff(along)
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > GAP * usual)
    if not len(gaps):
        return usual, []
    widest = int(gaps[np.argmax(steps[gaps])])
    return usual, [
        f"{len(gaps)} {'gap' if len(gaps) == 1 else 'gaps'} in z, the widest "
        f"{steps[widest]:.1f} mm after slice {widest} (usual distance {usual:.1f} mm)"
    ]


def _upright(
    voxels: NDArray[np.int16], header: Header
) -> tuple[NDArray[np.int16], tuple[float, float]]:
    """Rows from front to back, columns from the patient's right to left; spacing `(y, x)`."""
    row, column = header.axes[:3], header.axes[3:]
    pixel_mm = header.pixel_mm
    if abs(row[0]) < abs(row[1]):  # columns of the image run from front to back: transpose
        voxels, pixel_mm = voxels.transpose(0, 2, 1), pixel_mm[::-1]
        row, column = column, row
    if row[0] < 0:
        voxels = voxels[:, :, ::-1]
    if column[1] < 0:
        voxels = voxels[:, ::-1, :]
    return voxels, (pixel_mm[0], pixel_mm[1])


def _name(header: Header) -> str:
    name = header.entry.name
    return f"frame {header.frame + 1} of {name}" if header.frame else name


def _refusal(header: Header, status: Status, reason: str) -> Refusal:
    frame = f"frame {header.frame + 1}: " if header.frame else ""
    return Refusal(header.entry.name, status, frame + reason)


# ----------------------------------------------------------------------------------------- pixels


class _Opened:
    """The file that was opened last, so that the frames of one file are parsed once."""

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.data = b""
        self.digest = b""
        self._dataset: Dataset | None = None

    def content(self, header: Header) -> bytes:
        if self.entry != header.entry:
            self.data = header.entry.read()
            self.digest = hashlib.sha256(self.data).digest()
            self.entry, self._dataset = header.entry, None
        return self.data

    @property
    def dataset(self) -> Dataset:
        if self._dataset is None:
            self._dataset = dcmread(io.BytesIO(self.data), force=True)
            if "TransferSyntaxUID" not in self._dataset.file_meta:
                self._dataset.file_meta.TransferSyntaxUID = _GUESSES[
                    self._dataset.original_encoding
                ]
        return self._dataset


def _stored(header: Header, data: bytes, opened: _Opened) -> NDArray[np.generic]:
    """Stored values `(rows, columns)` of a slice.

    Raises:
        ReadError: The pixels cannot be decoded, or are not what the header says.
    """
    rows, columns = header.shape
    allocated, bits, signed = header.stored
    if header.pixels_at is not None:
        kind = "<i2" if signed else "<u2"
        try:
            flat = np.frombuffer(data, kind, rows * columns, header.pixels_at)
        except ValueError:
            raise ReadError("its pixels are cut short") from None
        return _without_overlays(flat.reshape(rows, columns), bits, allocated)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = opened.dataset
            shape = codestream_shape(ds, header.frame)
            if shape not in (None, (rows, columns)):
                raise ReadError(
                    f"a compressed image of {shape} pixels under a header of {(rows, columns)}"
                )
            pixels: NDArray[np.generic] = pixel_array(ds, index=header.frame)
    except ReadError:
        raise
    except Exception as error:  # decoders fail in as many ways as there are decoders
        raise ReadError(f"its pixels cannot be decoded ({type(error).__name__})") from None
    if pixels.shape != (rows, columns):
        raise ReadError(f"{pixels.shape} pixels under a header of {(rows, columns)}")
    return pixels


def _without_overlays(
    pixels: NDArray[np.integer[Any]], bits: int, allocated: int
) -> NDArray[np.integer[Any]]:
    """The stored bits alone: old scanners kept overlays in the bits above (PS3.5 8.1.1)."""
    spare = allocated - bits
    return pixels if not spare else (pixels << spare) >> spare
