"""Which patients train, choose and judge; and the nested ladders of ever fewer labels.

Everything here is about patients, never about slices: a patient stands on one side of every
border with all that was scanned. A patient's *stratum* is the set of classes that its labelled
images carry, so a stratified draw keeps the shares of patients with and without a finding.

Chance falls on a patient's place in its `Strata` and never on its name, which in a store is a
keyed hash: the same scans give the same draws whatever the key.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hounsfield.errors import LabelError, LeakError
from hounsfield.wording import plural

PARTS = ("train", "val", "test")  # of a split: who trains, who chooses, who judges

Strata = Mapping[str, frozenset[int]]  # patient -> the classes that its labelled images carry


@dataclass(frozen=True)
class Split:
    """Patients that train, that choose (validation), and that judge (test), each sorted.

    Raises:
        LeakError: A patient stands in two of the three.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        for one, two in combinations(PARTS, 2):
            both = sorted(set(getattr(self, one)) & set(getattr(self, two)))
            if both:
                raise LeakError(
                    f"{plural(len(both), 'patient')} in both {one} and {two}: {_some(both)}. "
                    "A patient's images belong to one part; correct the split column."
                )

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that change when any patient moves."""
        return patients_hash(self.train, self.val, self.test)


def strata(patients: Sequence[str], classes: Sequence[int]) -> dict[str, frozenset[int]]:
    """The classes that each patient carries, from one patient and one class an image.

    Patients stand in the order of their first images.
    """
    carried: dict[str, set[int]] = {}
    for patient, label in zip(patients, classes, strict=True):
        carried.setdefault(patient, set()).add(int(label))
    return {patient: frozenset(carried[patient]) for patient in carried}


def given(
    patients: Sequence[str],
    parts: Sequence[str | None],
    *,
    needed: Sequence[str] = ("train", "test"),
) -> Split:
    """The split that a store's own column names: one patient and one part an image.

    Args:
        patients: Of each image.
        parts: Of each image: train, val or test.
        needed: Parts that must not be empty.

    Raises:
        LabelError: An image has no part; one is not train, val or test, or is needed and empty.
        LeakError: A patient stands in two parts.
    """
    bare = sum(part is None for part in parts)
    if bare:
        raise LabelError(
            f"{bare:,} of {plural(len(parts), 'labelled image')} without a split. Ingest labels "
            "with a column `split` (train, val or test for every patient), or set `folds` in the "
            "study."
        )
    unknown = sorted({str(part) for part in parts} - set(PARTS))
    if unknown:
        raise LabelError(f"the split column holds {_some(unknown)}; allowed: train, val, test.")
    members: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for patient, part in zip(patients, parts, strict=True):
        members[str(part)].add(patient)
    for part in needed:
        if not members[part]:
            raise LabelError(
                f"the split column names no {part} patient. Name some, or set `folds` in the study."
            )
    return Split(*(tuple(sorted(members[part])) for part in PARTS))


def hold_out(split: Split, carried: Strata, *, share: float, stream: np.random.Generator) -> Split:
    """`split` with a stratified `share` of its training patients moved to validation."""
    chosen = set(_order(among(carried, split.train), stream)[: _size(split.train, share)])
    train = tuple(patient for patient in split.train if patient not in chosen)
    return Split(train, tuple(sorted({*split.val, *chosen})), split.test)


def folds(
    carried: Strata, *, count: int, classes: Sequence[str], stream: np.random.Generator
) -> list[Split]:
    """`count` splits whose test sets part the patients; sizes and strata differ by one at most.

    Validation is empty: take it out of the training patients with `hold_out`.

    Args:
        carried: Of the patients.
        count: Of the folds.
        classes: Their names, for messages.
        stream: Of chance.

    Raises:
        LabelError: A class has fewer patients than there are folds.
    """
    for label in sorted(frozenset().union(*carried.values())):
        holders = sum(label in those for those in carried.values())
        if holders < count:
            fewer = f"Set `folds` to {holders}, or use" if holders > 1 else "Use"
            raise LabelError(
                f"class {classes[label]!r} has {plural(holders, 'patient')}, and {count} folds "
                f"need one each. {fewer} a fixed split."
            )
    fold_of: dict[str, int] = {}
    for members in _shuffled_strata(carried, stream):
        for patient in members:
            fold_of[patient] = len(fold_of) % count  # dealt on from where the last stratum ended
    return [
        Split(
            train=tuple(sorted(p for p, fold in fold_of.items() if fold != test)),
            val=(),
            test=tuple(sorted(p for p, fold in fold_of.items() if fold == test)),
        )
        for test in range(count)
    ]


def ladder(
    carried: Strata, fractions: Iterable[float], *, stream: np.random.Generator
) -> dict[float, tuple[str, ...]]:
    """For each fraction its patients, sorted; a smaller fraction's lie within a larger one's.

    The patients are put in one order, drawn at random within each stratum and interleaved so
    that every beginning of the order has each stratum's share (Sainte-Lague's rounding); a
    fraction is a beginning of that order.
    """
    order = _order(carried, stream)
    return {
        fraction: tuple(sorted(order[: _size(order, fraction)])) for fraction in sorted(fractions)
    }


def among(carried: Strata, patients: Iterable[str]) -> Strata:
    """The strata of `patients` alone, in the order that they have in `carried`."""
    wanted = frozenset(patients)
    return {patient: classes for patient, classes in carried.items() if patient in wanted}


def missing_classes(patients: Iterable[str], carried: Strata) -> frozenset[int]:
    """The classes that nobody among `patients` carries."""
    everything = frozenset().union(*carried.values())
    return everything.difference(*(carried[patient] for patient in patients))


def patients_hash(*groups: Iterable[str]) -> str:
    """Sixteen hexadecimal digits of groups of patients; the order within a group does not count."""
    text = "\x1e".join("\x1f".join(sorted(group)) for group in groups)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _order(carried: Strata, stream: np.random.Generator) -> list[str]:
    places = {
        patient: ((rank + 0.5) / len(members), stream.random())  # chance decides between equals
        for members in _shuffled_strata(carried, stream)
        for rank, patient in enumerate(members)
    }
    return sorted(places, key=places.__getitem__)


def _shuffled_strata(carried: Strata, stream: np.random.Generator) -> list[list[str]]:
    members: dict[tuple[int, ...], list[str]] = {}
    for patient, classes in carried.items():
        members.setdefault(tuple(sorted(classes)), []).append(patient)
    return [[str(p) for p in stream.permutation(members[key])] for key in sorted(members)]


def _size(patients: Sequence[str], fraction: float) -> int:
    return math.floor(fraction * len(patients) + 0.5)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
