from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from hounsfield.data.leaks import Leak, leaks, looks, sides_of
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store


def faces(seed: int, count: int) -> NDArray[np.int16]:
    """Smooth pictures that are unlike each other: `(count, 64, 64)` in HU."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((count, 64, 64)), (0, 5, 5))
    return np.rint(noise / np.abs(noise).max() * 900).astype(np.int16)


def store_of(
    path: Path, images: NDArray[np.int16], patients: list[str], splits: list[str | None]
) -> Store:
    index = pl.DataFrame(
        {
            "patient": patients,
            "series": patients,
            "split": splits,
            "source": [f"{path.name}-{place}" for place in range(len(images))],
        }
    )
    return write_store(path, images, index)


def all_leaks(*stores: Store) -> list[Leak]:
    pairs, _ = sides_of(stores)
    return [leak for judged, seen in pairs for leak in leaks(seen, [judged])]


def test_patients_slices_and_lookalikes_are_found_and_nothing_else(tmp_path: Path) -> None:
    images = faces(0, 6)
    noisy = images[2] + np.random.default_rng(9).integers(-6, 7, images[2].shape).astype(np.int16)
    task = store_of(
        tmp_path / "task",
        np.stack([*images[:3], images[3], images[0]]),
        ["a", "b", "c", "d", "e"],
        ["train", "train", "test", "test", "test"],
    )
    pool = store_of(
        tmp_path / "pool",
        np.stack([noisy, images[4], images[5]]),
        ["x", "d", "y"],
        [None, None, None],
    )
    found = {(leak.kind, leak.seen, leak.judged): leak for leak in all_leaks(task, pool)}
    assert set(found) == {
        ("slice", "task (train)", "task (test)"),
        ("patient", "pool (pool)", "task (test)"),
        ("near-duplicate", "pool (pool)", "task (test)"),
    }
    assert found["slice", "task (train)", "task (test)"].examples == ("row 4 ~ row 0",)
    assert found["patient", "pool (pool)", "task (test)"].examples == ("d",)
    assert found["near-duplicate", "pool (pool)", "task (test)"].examples == ("row 2 ~ row 0",)


def test_every_look_that_was_announced_is_told(tmp_path: Path) -> None:
    images = faces(2, 7)
    splits = ["train", "train", "val", "test", "test", None, "train"]
    store = store_of(tmp_path / "store", images[[0, 1, 2, 3, 0, 5, 6]], list("abcdefg"), splits)
    for judged, seen in sides_of([store])[0]:
        told: list[int] = []
        leaks(seen, [judged], advance=told.append)
        assert sum(told) == looks(seen, [judged])


def test_the_same_source_is_a_leak_whatever_became_of_its_pixels(tmp_path: Path) -> None:
    images = faces(1, 2)
    index = pl.DataFrame({"patient": ["a", "b"], "series": ["a", "b"], "source": ["same", "same"]})
    store = write_store(
        tmp_path / "store", images, index.with_columns(pl.Series("split", ["train", "test"]))
    )
    (leak,) = all_leaks(store)
    assert (leak.kind, leak.count) == ("slice", 1)


def test_empty_slices_are_like_nothing(tmp_path: Path) -> None:
    images = np.full((2, 64, 64), -1000, np.int16)
    assert all_leaks(store_of(tmp_path / "s", images, ["a", "b"], ["train", "test"])) == []


def test_neighbouring_slices_of_a_patient_are_named_once_as_that_patient(tmp_path: Path) -> None:
    image = faces(2, 1)[0]
    images = np.stack([image, image + np.int16(3)])
    (leak,) = all_leaks(store_of(tmp_path / "s", images, ["a", "a"], ["train", "val"]))
    assert leak.kind == "patient"
    assert str(leak) == ("patients of s (val) in s (train): 1 (1 slice), for example a")


def test_a_store_without_a_judged_side_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", faces(3, 1), ["a"], ["train"])
    assert sides_of([store]) == ([], ["s"])


@pytest.mark.parametrize("seed", range(3))
def test_pictures_that_differ_are_not_taken_for_copies(tmp_path: Path, seed: int) -> None:
    count = 40
    store = store_of(
        tmp_path / "s",
        faces(10 + seed, count),
        [f"p{place}" for place in range(count)],
        ["train" if place % 2 else "test" for place in range(count)],
    )
    assert all_leaks(store) == []
