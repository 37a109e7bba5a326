from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from hounsfield.data import split as sp
from hounsfield.errors import LabelError, LeakError
from hounsfield.seeding import stream

CLASSES = ("none", "bleed", "fracture")
CLASS_SETS = st.sampled_from([frozenset({0}), frozenset({0, 1}), frozenset({1}), frozenset({2, 0})])
CARRIED = st.lists(CLASS_SETS, min_size=1, max_size=60).map(
    lambda sets: {f"p{number:02d}": classes for number, classes in enumerate(sets)}
)
FRACTIONS = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5, unique=True)
SEEDS = st.integers(0, 2**32)


@over(CARRIED, FRACTIONS, SEEDS)
@settings(max_examples=150, deadline=None)
def test_smaller_fractions_lie_within_larger_ones(carried, fractions, seed):
    rungs = list(sp.ladder(carried, fractions, stream=stream(seed, "ladder")).values())
    for small, large in pairwise(rungs):
        assert set(small) <= set(large) <= set(carried)


@over(CARRIED, FRACTIONS, SEEDS)
@settings(max_examples=150, deadline=None)
def test_a_fraction_holds_its_share_of_patients_and_of_every_stratum(carried, fractions, seed):
    whole = Counter(carried.values())
    for fraction, rung in sp.ladder(carried, fractions, stream=stream(seed, "x")).items():
        assert abs(len(rung) - fraction * len(carried)) <= 0.5 + 1e-9
        drawn = Counter(carried[patient] for patient in rung)
        for stratum, count in whole.items():
            # rounding a threshold moves each of the strata by a half at most
            bound = 0.5 + 0.5 * len(whole) * count / len(carried)
            assert abs(drawn[stratum] - len(rung) * count / len(carried)) <= bound + 1e-9


@over(CARRIED, SEEDS, st.randoms())
@settings(max_examples=100, deadline=None)
def test_other_names_for_the_same_patients_draw_the_same_patients(carried, seed, dice):
    aliases = [f"q{number:02d}" for number in range(len(carried))]
    dice.shuffle(aliases)
    named = dict(zip(carried, aliases, strict=True))
    renamed = {named[patient]: classes for patient, classes in carried.items()}
    part = sp.Split(tuple(carried), (), ())
    part_renamed = sp.Split(tuple(sorted(renamed)), (), ())

    def drawn(strata, split):
        rungs = sp.ladder(strata, [0.3, 1.0], stream=stream(seed, "ladder"))
        held = sp.hold_out(split, strata, share=0.2, stream=stream(seed, "val"))
        return {**rungs, "val": held.val}

    one, two = drawn(carried, part), drawn(renamed, part_renamed)
    for which, patients in one.items():
        assert sorted(named[patient] for patient in patients) == sorted(two[which])


def test_repeats_draw_different_patients():
    carried = {f"p{number:02d}": frozenset({number % 2}) for number in range(40)}
    rungs = {sp.ladder(carried, [0.25], stream=stream(0, "ladder", r))[0.25] for r in range(5)}
    assert len(rungs) == 5
    drawn = Counter(patient for rung in rungs for patient in rung)
    assert max(drawn.values()) < 5  # no patient is in every repeat


@over(CARRIED, st.integers(2, 6), SEEDS)
@settings(max_examples=150, deadline=None)
def test_folds_part_the_patients_evenly_and_by_stratum(carried, count, seed):
    holders = Counter(label for classes in carried.values() for label in classes)
    if min(holders.values()) < count:
        scarce = min(label for label in holders if holders[label] < count)
        with pytest.raises(LabelError, match=f"class '{CLASSES[scarce]}' has {holders[scarce]} "):
            sp.folds(carried, count=count, classes=CLASSES, stream=stream(seed, "folds"))
        return
    splits = sp.folds(carried, count=count, classes=CLASSES, stream=stream(seed, "folds"))
    tested = [patient for split in splits for patient in split.test]
    assert sorted(tested) == sorted(carried)
    assert all({*split.train, *split.test} == set(carried) for split in splits)
    sizes = [len(split.test) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    for stratum in set(carried.values()):
        counts = [sum(carried[p] == stratum for p in split.test) for split in splits]
        assert max(counts) - min(counts) <= 1


@over(CARRIED, st.floats(0.05, 0.5), SEEDS)
@settings(max_examples=100, deadline=None)
def test_held_out_patients_leave_the_training_set_and_the_test_set_alone(carried, share, seed):
    whole = sp.Split(tuple(sorted(carried)), (), ("judge",))
    split = sp.hold_out(whole, carried, share=share, stream=stream(seed, "val"))
    assert sorted({*split.train, *split.val}) == sorted(carried)
    assert not set(split.train) & set(split.val)
    assert split.test == ("judge",)
    assert abs(len(split.val) - share * len(carried)) <= 0.5 + 1e-9


def test_strata_are_the_classes_that_a_patients_images_carry():
    carried = sp.strata(["b", "a", "b", "b"], [0, 1, 1, 0])
    assert carried == {"a": frozenset({1}), "b": frozenset({0, 1})}
    assert list(carried) == ["b", "a"]
    assert sp.missing_classes(["a"], carried) == frozenset({0})
    assert sp.missing_classes([], carried) == frozenset({0, 1})


def test_a_patient_on_both_sides_is_refused_by_name():
    with pytest.raises(LeakError, match=r"1 patient in both train and test: b\."):
        sp.given(["a", "b", "b"], ["train", "train", "test"])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["train", None], "1 of 2 labelled images without a split"),
        (["train", "tset"], "the split column holds tset; allowed: train, val, test"),
        (["train", "val"], "names no test patient"),
        (["test", "test"], "names no train patient"),
    ],
)
def test_a_split_column_that_cannot_serve_is_refused(parts, message):
    with pytest.raises(LabelError, match=message):
        sp.given(["a", "b"], parts)


def test_the_hash_changes_when_a_patient_moves_and_not_with_the_order():
    one = sp.Split(("a", "b"), ("c",), ("d",))
    assert one.hash == sp.Split(("b", "a"), ("c",), ("d",)).hash
    assert one.hash != sp.Split(("a",), ("b", "c"), ("d",)).hash
    assert len(one.hash) == 16


def test_ladders_of_patients_do_not_touch_the_global_generator():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the thing under test
    sp.ladder({"a": frozenset({0})}, [1.0], stream=stream(0))
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
