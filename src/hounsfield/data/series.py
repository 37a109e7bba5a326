"""Slices by their headers alone, and which of them form a volume."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hounsfield.data.archive import Entry, natural
from hounsfield.data.volume import Facts

SAME_MM = 0.01  # positions closer than this are one


@dataclass(frozen=True)
class Header:
    """What is known of one slice (a file, or a frame of one) before its pixels are read.

    Attributes:
        entry, frame: Where it lies.
        patient, study, series, sop: Identities.
        shape: Rows and columns.
        axes: Row and column direction, six cosines.
        along_mm: Position of the first pixel's centre along the normal, towards the head.
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
    along_mm: float
    pixel_mm: tuple[float, float]
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    stored: tuple[int, int, bool]
    pixels_at: int | None
    phase: tuple[int, int]
    number: int
    facts: Facts


def across(axes: Sequence[float]) -> tuple[float, float, float]:
    """The unit vector across a slice with these row and column directions, towards the head."""
    (a, b, c), (d, e, f) = axes[:3], axes[3:]
    x, y, z = b * f - c * e, c * d - a * f, a * e - b * d
    length = math.copysign(math.hypot(x, y, z), z)
    return x / length, y / length, z / length


def group(headers: Iterable[Header]) -> list[tuple[Header, ...]]:
    """Slices that form volumes, each from feet to head.

    A group shares patient, study, series, orientation, spacing, kernel and matrix. A series that
    passes over its positions several times is a group a pass; else slices at one position, copies
    among them, stay together, and `read` takes the first that can be read.
    """
    together: dict[tuple[object, ...], list[Header]] = defaultdict(list)
    for header in headers:
        together[_same(header)].append(header)
    groups: list[tuple[Header, ...]] = []
    parts: Counter[tuple[str, str]] = Counter()
    for slices in together.values():
        slices.sort(key=lambda one: (one.along_mm, one.number, natural(one.entry.name)))
        for one_pass in _passes(slices):
            series = one_pass[0].study, one_pass[0].series
            parts[series] += 1
            groups.append(_renamed(one_pass, parts[series]))
    return groups


def spots_of(slices: Sequence[Header]) -> list[list[Header]]:
    """Sorted slices, those at one position together."""
    spots: list[list[Header]] = []
    for header in slices:
        if spots and header.along_mm - spots[-1][0].along_mm < SAME_MM:
            spots[-1].append(header)
        else:
            spots.append([header])
    return spots


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
    if not _repeats(slices) or any(_repeats(one_pass) for one_pass in by_phase.values()):
        return [slices]
    return [by_phase[phase] for phase in sorted(by_phase)]


def _repeats(slices: list[Header]) -> bool:
    """Whether two images, not two copies of one, lie at one position."""
    return any(len({(one.sop, one.frame) for one in spot}) > 1 for spot in spots_of(slices))


def _renamed(slices: list[Header], part: int) -> tuple[Header, ...]:
    """The slices; the further volumes of a series have names of their own."""
    if part == 1:
        return tuple(slices)
    return tuple(replace(header, series=f"{header.series}#{part}") for header in slices)
