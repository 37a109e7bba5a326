"""What the judged slices share with the slices that a network may have seen.

A leak is the same patient, the same slice (the same source, or equal pixels), or a near-duplicate
of another patient's slice. Whoever is judged is held against everything that was seen: the other
splits of a task, and the stores of a pre-training.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from hounsfield.data.likeness import CHUNK, Hashes, difference_hashes, distances, thumbnails
from hounsfield.data.store import Store
from hounsfield.wording import plural

NEAR_BITS = 6  # hashes this close are looked at again
NEAR_CORRELATION = 0.995  # and thumbnails this alike are near-duplicates
EXAMPLES = 5
_BLOCK = 2**22  # pairs of hashes compared at once

Kind = Literal["patient", "slice", "near-duplicate"]
_JUDGED: Final = ("test", "val")
_WORDS: Final[Mapping[Kind, str]] = {
    "patient": "patients",
    "slice": "equal slices",
    "near-duplicate": "near-duplicate slices",
}


@dataclass(frozen=True)
class Side:
    """Slices on one side of the border, under a name that a message can use."""

    name: str
    store: Store
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Leak:
    """What two sides share.

    Attributes:
        kind: The same patient, the same slice, or a near-duplicate of another patient's.
        seen, judged: The names of the sides.
        count: Judged patients, or judged slices.
        slices: Judged slices that it touches.
        examples: Patients, or `row ~ row` of the judged and of the seen store.
    """

    kind: Kind
    seen: str
    judged: str
    count: int
    slices: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{_WORDS[self.kind]} of {self.judged} in {self.seen}: {self.count} "
            f"({plural(self.slices, 'slice')}), for example {', '.join(self.examples)}"
        )


def leaks(
    seen: Sequence[Side],
    judged: Sequence[Side],
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Leak]:
    """Everything that each judged side shares with each seen side.

    `advance` is told of slices as they are looked at, `looks(seen, judged)` in all.
    """
    return [leak for found in by_pair(seen, judged, advance=advance) for leak in found]


def by_pair(
    seen: Sequence[Side],
    judged: Sequence[Side],
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[list[Leak]]:
    """What each judged side shares with each seen side, a list a pair; pixels are read once."""
    looked = {id(side): _Look(side, advance) for side in (*seen, *judged)}
    for before, after in product(seen, judged):
        yield _between(looked[id(before)], looked[id(after)])


def looks(seen: Sequence[Side], judged: Sequence[Side]) -> int:
    """How often slices are looked at: at their pixels, to be hashed, against each side seen."""
    if not seen or not judged:
        return 0
    each = 2 * sum(len(side.rows) for side in (*seen, *judged))
    return each + len(seen) * sum(len(side.rows) for side in judged)


def sides_of(stores: Sequence[Store]) -> tuple[list[tuple[Side, list[Side]]], list[str]]:
    """Each judged side of the stores with all that it must not share, and stores without any.

    A test side is held against validation, training and unsplit slices of all stores; a
    validation side against training and unsplit slices.
    """
    sides: dict[str, list[Side]] = {"test": [], "val": [], "train": [], "pool": []}
    without: list[str] = []
    for store in stores:
        split = store.index["split"].fill_null("pool").to_numpy()
        for part in sides:
            rows = np.flatnonzero(split == part).astype(np.int64)
            if len(rows):
                sides[part].append(Side(f"{store.path.name} ({part})", store, rows))
        if not set(_JUDGED) & set(split):
            without.append(store.path.name)
    apart = sides["train"] + sides["pool"]
    pairs = [(side, [*sides["val"], *apart]) for side in sides["test"]]
    pairs += [(side, apart) for side in sides["val"]]
    return pairs, without


class _Look:
    """A side, looked at as far as it is asked for."""

    def __init__(self, side: Side, advance: Callable[[int], None]) -> None:
        self.side = side
        self.advance = advance
        index = side.store.index[side.rows]
        self.patients = index["patient"].to_numpy().astype(object)
        self.sources = index["source"].to_list()
        self._hashes: Hashes | None = None
        self._pixels: list[str] | None = None

    @property
    def hashes(self) -> Hashes:
        if self._hashes is None:
            self._hashes = difference_hashes(self.side.store, self.side.rows, advance=self.advance)
        return self._hashes

    @property
    def pixels(self) -> list[str]:
        """A hash of the stored pixels of every slice; "" for a slice of one value."""
        if self._pixels is None:
            self._pixels = []
            for start in range(0, len(self.side.rows), CHUNK):
                part = self.side.rows[start : start + CHUNK]
                for image in self.side.store.read(part):
                    flat = image.min() == image.max()
                    digest = hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
                    self._pixels.append("" if flat else digest)
                self.advance(len(part))
        return self._pixels


def _between(seen: _Look, judged: _Look) -> list[Leak]:
    found = _patients(seen, judged)
    same, pairs = _equal(seen, judged)
    if len(pairs):
        found.append(_leak("slice", seen, judged, pairs))
    near = _near(seen, judged, same)
    if len(near):
        found.append(_leak("near-duplicate", seen, judged, near))
    return found


def _patients(seen: _Look, judged: _Look) -> list[Leak]:
    both = sorted(set(seen.patients) & set(judged.patients))
    if not both:
        return []
    touched = int(np.isin(judged.patients, both).sum())
    names = seen.side.name, judged.side.name
    return [Leak("patient", *names, len(both), touched, tuple(map(str, both[:EXAMPLES])))]


def _equal(seen: _Look, judged: _Look) -> tuple[NDArray[np.bool_], list[tuple[int, int]]]:
    """Which judged slices are seen too, and each with the first place where it is."""
    places: dict[str, int] = {}
    for look_up in (seen.pixels, seen.sources):
        for place, key in enumerate(look_up):
            if key:
                places.setdefault(key, place)
    same = np.zeros(len(judged.sources), dtype=bool)
    pairs = []
    for place, keys in enumerate(zip(judged.sources, judged.pixels, strict=True)):
        there = next((places[key] for key in keys if key and key in places), None)
        if there is not None:
            same[place] = True
            pairs.append((place, there))
    return same, pairs


def _near(seen: _Look, judged: _Look, same: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Judged slices that look like a seen slice of another patient, and are not equal to one."""
    left = np.flatnonzero(~same)
    judged.advance(len(same) - len(left))
    block = max(_BLOCK // max(len(seen.hashes), 1), 1)
    found: list[tuple[int, int]] = []
    for start in range(0, len(left), block):
        here = left[start : start + block]
        close = distances(judged.hashes[here, None], seen.hashes[None, :]) <= NEAR_BITS
        ours, theirs = np.nonzero(close)
        others = judged.patients[here[ours]] != seen.patients[theirs]
        found += _confirmed(seen, judged, here[ours][others], theirs[others])
        judged.advance(len(here))
    return found


def _confirmed(
    seen: _Look, judged: _Look, ours: NDArray[np.int64], theirs: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Of candidate pairs, for each judged slice the most alike, if alike enough."""
    if not len(ours):
        return []
    some, our_place = np.unique(ours, return_inverse=True)
    others, their_place = np.unique(theirs, return_inverse=True)
    left = thumbnails(judged.side.store, judged.side.rows[some])
    right = thumbnails(seen.side.store, seen.side.rows[others])
    alike = np.empty(len(ours), dtype=np.float32)
    for at in range(0, len(ours), CHUNK):
        part = slice(at, at + CHUNK)
        alike[part] = (left[our_place[part]] * right[their_place[part]]).sum(1)
    best: dict[int, tuple[float, int]] = {}
    for place, there, likeness in zip(ours, theirs, alike, strict=True):
        if likeness >= NEAR_CORRELATION and likeness > best.get(int(place), (0.0, 0))[0]:
            best[int(place)] = (float(likeness), int(there))
    return [(place, there) for place, (_, there) in sorted(best.items())]


def _leak(kind: Kind, seen: _Look, judged: _Look, pairs: Sequence[tuple[int, int]]) -> Leak:
    examples = tuple(
        f"row {judged.side.rows[place]} ~ row {seen.side.rows[there]}"
        for place, there in pairs[:EXAMPLES]
    )
    return Leak(kind, seen.side.name, judged.side.name, len(pairs), len(pairs), examples)
