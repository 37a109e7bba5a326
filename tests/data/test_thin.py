from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from hounsfield.data.likeness import difference_hashes, distances
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.data.thin import keep, thin
from hounsfield.errors import ConfigError, OutputError

WORDS = st.lists(st.integers(0, 2**64 - 1), max_size=30)


def make(path: Path, images: NDArray[np.int16], series: list[str]) -> Store:
    index = pl.DataFrame(
        {"patient": ["p"] * len(series), "series": series, "z": range(len(series))}
    )
    return write_store(path, images.astype(np.int16), index)


def obvious_keep(hashes: list[int], distance: int) -> list[bool]:
    """The published procedure, word for word: keep the first, drop all like it, again."""
    left = list(range(len(hashes)))
    kept = []
    while left:
        first = left.pop(0)
        kept.append(first)
        left = [one for one in left if (hashes[first] ^ hashes[one]).bit_count() > distance]
    return [place in kept for place in range(len(hashes))]


@given(hashes=WORDS, distance=st.integers(0, 63))
def test_greedy_thinning_is_the_published_procedure(hashes: list[int], distance: int) -> None:
    got = keep(np.array(hashes, dtype=np.uint64), distance)
    assert got.tolist() == obvious_keep(hashes, distance)


@given(hashes=WORDS, distance=st.integers(0, 63))
def test_what_is_kept_is_apart_and_what_is_dropped_is_near(
    hashes: list[int], distance: int
) -> None:
    words = np.array(hashes, dtype=np.uint64)
    stays = keep(words, distance)
    kept = words[stays]
    apart = distances(kept[:, None], kept[None, :]) > distance
    assert (apart | np.eye(len(kept), dtype=bool)).all()
    if len(kept):
        assert (distances(words[~stays, None], kept[None, :]) <= distance).any(1).all()


def test_hashes_are_those_of_pillow_and_the_published_rule(tmp_path: Path) -> None:
    """Pillow's box filter is an area average too, so every bit must agree."""
    rng = np.random.default_rng(0)
    images = rng.integers(-1000, 1000, (6, 72, 72)).astype(np.int16)
    images[3] = np.linspace(-1000, 1000, 72)[None, :]
    images[4] = -1000
    store = make(tmp_path / "store", images, ["s"] * 6)
    hashes = difference_hashes(store, np.arange(6))
    for image, got in zip(images, hashes, strict=True):
        grey = np.rint((image.astype(float) + 1000) / 2000 * 255).astype(np.uint8)
        small = np.asarray(Image.fromarray(grey).resize((9, 8), Image.Resampling.BOX), dtype=int)
        bits = (small[:, 1:] > small[:, :-1]).ravel()
        expected = sum(1 << place for place, bit in enumerate(bits.tolist()) if bit)
        assert int(got).bit_count() == pytest.approx(expected.bit_count(), abs=1)
        assert (int(got) ^ expected).bit_count() <= 1  # a tie that rounds differently
    assert int(hashes[3]) == 2**64 - 1
    assert int(hashes[4]) == 0


def test_copies_go_within_a_volume_and_stay_between_volumes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    distinct = np.kron(rng.integers(-1000, 1000, (3, 9, 9)), np.ones((4, 4))).astype(np.int16)
    images = distinct[[0, 0, 1, 1, 2, 0, 1]]
    store = make(tmp_path / "store", images, ["a"] * 5 + ["b"] * 2)
    told: list[int] = []
    thinned = thin(store, tmp_path / "thin", distance=2, advance=told.append)
    assert sum(told) == 2 * len(store)
    out = Store.open(tmp_path / "thin")
    assert thinned.volumes.select("slices", "kept").rows() == [(5, 3), (2, 2)]
    assert np.array_equal(out.read(np.arange(5)), distinct[[0, 1, 2, 0, 1]])
    assert out.index["z"].to_list() == [0, 2, 4, 5, 6]
    assert thinned.curve[0] >= thinned.curve[2] == 5
    assert list(thinned.curve.values()) == sorted(thinned.curve.values(), reverse=True)
    assert "<svg" in (tmp_path / "thin" / "thinning.svg").read_text()
    assert any("distance 2" in note for note in out.facts.notes)


def test_an_impossible_distance_and_an_existing_folder_are_refused(
    small_store: Store, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="64 is not allowed; give 0 to 63"):
        thin(small_store, tmp_path / "thin", distance=64)
    with pytest.raises(OutputError, match="exists"):
        thin(small_store, small_store.path)
