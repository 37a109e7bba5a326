"""DICOM CT to volumes: series by geometry, sorted by position, pixels in HU."""

import hashlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from hounsfield.data.archive import Entry
from hounsfield.data.readers.codestream import codestream_shape
from hounsfield.data.refusal import Announce, Refusal, Refuse, Status
from hounsfield.data.series import Header, across, spots_of
from hounsfield.data.volume import MAX_VOXELS, Volume, hu, source_of
from hounsfield.errors import ReadError

TILT_SAID_DEG = 0.5
GAP = 1.5  # times the usual distance between slices
_GUESSES: Mapping[tuple[bool | None, bool | None], UID] = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""The transfer syntax of a file that does not say, by (implicit, little endian)."""


def read(headers: Sequence[Header], refuse: Refuse, announce: Announce) -> Iterator[Volume]:
    """The volume of one group, without the slices that cannot be read; nothing if none can.

    Of several slices at one position the first that can be read goes in; the others are refused
    as duplicates.
    """
    height, width = headers[0].shape
    spots = spots_of(headers)
    if len(spots) * height * width > MAX_VOXELS:
        for header in headers:
            reason = f"{len(spots)} slices of {height} x {width}: larger than any CT"
            refuse(_refusal(header, "refused", reason))
        return
    voxels = np.empty((len(spots), height, width), dtype=np.int16)
    kept: list[Header] = []
    sources: list[str] = []
    for header, image, source in _readable(spots, refuse, announce):
        voxels[len(kept)] = image
        kept.append(header)
        sources.append(source)
    if kept:
        yield _volume(kept, sources, voxels[: len(kept)])


def _readable(
    spots: Sequence[Sequence[Header]], refuse: Refuse, announce: Announce
) -> Iterator[tuple[Header, NDArray[np.int16], str]]:
    """Of every spot the first slice that can be read, with its HU and its source."""
    opened = _Opened()
    for spot in spots:
        taken: Header | None = None
        for header in spot:
            if taken is not None:
                refuse(_duplicate(header, taken))
                continue
            announce(header.entry.name)
            try:
                image = _pixels(header, opened)
            except ReadError as error:
                refuse(_refusal(header, "refused", str(error)))
                continue
            taken = header
            yield header, image, source_of(opened.digest, header.frame)


def _volume(headers: Sequence[Header], sources: Sequence[str], voxels: NDArray[np.int16]) -> Volume:
    """The volume of slices that were read, in their order."""
    first = headers[0]
    along = np.array([header.along_mm for header in headers])
    step, notes = _steps(along)
    voxels, pixel_mm = _upright(voxels, first)
    tilt = np.degrees(np.arccos(min(across(first.axes)[2], 1.0)))
    if tilt > TILT_SAID_DEG:
        notes.append(f"gantry tilt of {tilt:.1f} degrees, left as it is")
    return Volume(
        voxels=voxels,
        units="hu",
        spacing_mm=(step, *pixel_mm),
        z_mm=along,
        patient=first.patient,
        study=first.study,
        series=first.series,
        files=tuple(header.entry.name for header in headers),
        sources=tuple(sources),
        numbers=tuple(header.number for header in headers),
        facts=first.facts,
        notes=tuple(notes),
    )


def _duplicate(header: Header, taken: Header) -> Refusal:
    same = (header.sop, header.frame) == (taken.sop, taken.frame)
    reason = f"{'the same image as' if same else 'at the same position as'} another"
    return replace(_refusal(header, "duplicate", reason), other=taken.entry.name)


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


def _refusal(header: Header, status: Status, reason: str) -> Refusal:
    frame = f"frame {header.frame + 1}: " if header.frame else ""
    return Refusal(header.entry.name, status, frame + reason)


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


def _pixels(header: Header, opened: _Opened) -> NDArray[np.int16]:
    """HU `(rows, columns)` of a slice.

    Raises:
        ReadError: Its file cannot be read or decoded.
    """
    stored = _stored(header, opened.content(header), opened)
    return hu(stored, slope=header.slope, intercept=header.intercept, padding=header.padding)


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
    limits = np.iinfo(pixels.dtype)
    if not spare or (pixels.max() <= limits.max >> spare and pixels.min() >= limits.min >> spare):
        return pixels
    return (pixels << spare) >> spare
