"""What a compressed image says of its own size, read before a decoder sees it.

A mutated codestream can ask a decoder for any amount of memory; one that disagrees with its DICOM
header is refused instead.
"""

import zlib

from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import DeflatedExplicitVRLittleEndian

from hounsfield.data.archive import MAX_BYTES
from hounsfield.errors import ReadError

_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xF7}
_JPEG2000, _JPEG = b"\xff\x4f\xff\x51", b"\xff\xd8"
_END = b"\xff\xd9"  # of all of them; compressed data cannot hold it by chance
_TAIL_BYTES = 1024  # some writers leave a few bytes after the end
_DEFLATED = DeflatedExplicitVRLittleEndian.encode()


def codestream_shape(ds: Dataset, frame: int) -> tuple[int, int] | None:
    """Rows and columns in the codestream of a frame; None where it is not compressed or RLE.

    Raises:
        ReadError: The codestream has no end. Decoders fill in what is missing and say nothing.
    """
    if not ds.file_meta.TransferSyntaxUID.is_compressed:
        return None
    count = int(ds.get("NumberOfFrames") or 1)
    stream = get_frame(ds.PixelData, frame, number_of_frames=count)
    if not stream.startswith((_JPEG2000, _JPEG)):
        return None
    if _END not in stream[-_TAIL_BYTES:]:
        raise ReadError("its compressed pixels are cut short")
    return _jpeg2000_shape(stream) if stream.startswith(_JPEG2000) else _jpeg_shape(stream)


def is_deflated(data: bytes) -> bool:
    """Whether the head of a DICOM file says that the rest is deflated."""
    return _DEFLATED in data[:1024]


def inflated_is_sane(data: bytes) -> bool:
    """False for a deflated DICOM file that would unpack to more than `MAX_BYTES`."""
    start = 132 + 12 + int.from_bytes(data[140:144], "little")  # group 0002 has a length first
    try:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        rest, size = data[start:], 0
        while rest and not inflater.eof and size <= MAX_BYTES:
            size += len(inflater.decompress(rest, 2**24))
            rest = inflater.unconsumed_tail
    except zlib.error:
        return True  # the reader will say what is broken
    return size <= MAX_BYTES


def _jpeg2000_shape(stream: bytes) -> tuple[int, int] | None:
    """From the SIZ marker: extent less offset (ISO/IEC 15444-1 A.5.1)."""
    if len(stream) < 24:
        return None
    right, bottom, left, top = (
        int.from_bytes(stream[at : at + 4], "big") for at in range(8, 24, 4)
    )
    return bottom - top, right - left


def _jpeg_shape(stream: bytes) -> tuple[int, int] | None:
    """From the start-of-frame marker of JPEG or JPEG-LS (ISO/IEC 10918-1 B.2.2)."""
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in _START_OF_FRAME:
            return (
                int.from_bytes(stream[at + 5 : at + 7], "big"),
                int.from_bytes(stream[at + 7 : at + 9], "big"),
            )
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None
