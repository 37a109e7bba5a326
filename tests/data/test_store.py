import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hounsfield.data.store import COLUMNS, Store
from hounsfield.data.store_writer import StoreWriter, write_store
from hounsfield.errors import StoreError


def test_what_was_written_is_read_in_the_order_asked(small_store: Store) -> None:
    rows = np.array([7, 0, 9, 3, 3], dtype=np.int64)
    images = small_store.read(rows)
    assert images.dtype == np.int16
    assert np.array_equal(images, np.broadcast_to(rows[:, None, None], (5, 8, 8)))
    assert [shard.rows for shard in small_store.facts.shards] == [4, 4, 2]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 9)))
def test_any_rows_come_as_from_an_array_in_memory(small_store: Store, rows: list[int]) -> None:
    whole = np.repeat(np.arange(10, dtype=np.int16), 64).reshape(10, 8, 8)
    asked = np.array(rows, dtype=np.int64)
    assert np.array_equal(small_store.read(asked), whole[asked])


def test_the_index_has_every_column_in_its_place_and_labels_last(small_store: Store) -> None:
    assert small_store.index.columns == [*COLUMNS, "bleed"]
    assert small_store.labels == ("bleed",)
    assert small_store.index["slice"].to_list() == list(range(10))
    assert small_store.is_hu.tolist() == [True, False] * 5
    assert (small_store.facts.patients, small_store.facts.series) == (3, 3)


def test_equal_content_has_equal_hashes_and_one_changed_label_another(tmp_path: Path) -> None:
    images = np.zeros((3, 4, 4), np.int16)
    index = pl.DataFrame({"patient": ["a"] * 3, "series": ["s"] * 3, "bleed": [0, 1, 0]})
    changed = index.with_columns(pl.Series("bleed", [0, 1, 1]))
    hashes = [
        write_store(tmp_path / name, images, table).hash
        for name, table in [("one", index), ("two", index), ("three", changed)]
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_every_file_of_a_store_is_on_the_disk_before_the_store_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[str] = set()
    to_disk = os.fsync

    def see(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        assert not (tmp_path / "store").exists()
        flushed.add(place.name if place.suffix != ".part" else place.name.split(".")[1])
        to_disk(descriptor)

    monkeypatch.setattr(os, "fsync", see)
    index = pl.DataFrame({"patient": ["a"] * 3, "series": ["s"] * 3})
    write_store(tmp_path / "store", np.zeros((3, 4, 4), np.int16), index, shard_bytes=64)
    names = ["00000.npy", "00001.npy", "index.parquet", "refused.csv", "store"]
    assert sorted(flushed) == names


def test_a_row_beyond_the_end_is_refused(small_store: Store) -> None:
    with pytest.raises(StoreError, match=r"rows 0 to 10 .* has rows 0 to 9"):
        small_store.read(np.array([0, 10]))


def test_a_shard_that_is_missing_or_short_is_found_at_once(small_store: Store) -> None:
    shard = small_store.path / "shards" / "00001.npy"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(StoreError, match=r"00001\.npy cannot be read"):
        Store.open(small_store.path)
    shard.unlink()
    with pytest.raises(StoreError, match=r"00001\.npy cannot be read"):
        Store.open(small_store.path)


def test_one_flipped_bit_is_found_by_verify(small_store: Store) -> None:
    small_store.verify()
    shard = small_store.path / "shards" / "00002.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreError, match=r"00002\.npy is not what was written"):
        Store.open(small_store.path).verify()


def test_a_store_of_another_format_says_so(small_store: Store) -> None:
    file = small_store.path / "store.json"
    file.write_text(json.dumps({"format_version": 7, "unheard": "of"}))
    with pytest.raises(StoreError, match="format 7; this version reads format 1"):
        Store.open(small_store.path)


def test_a_place_without_a_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="hounsfield ingest"):
        Store.open(tmp_path / "nothing")


def test_store_json_cannot_lead_outside_the_store(small_store: Store) -> None:
    file = small_store.path / "store.json"
    file.write_text(file.read_text().replace("00000.npy", "../../secret.npy"))
    with pytest.raises(StoreError, match="outside the store"):
        Store.open(small_store.path)


def test_taking_over_keeps_the_first_rows_and_adds_after_them(
    small_store: Store, tmp_path: Path
) -> None:
    writer = StoreWriter(tmp_path / "grown", size=8)
    writer.take_over(small_store)
    writer.add(np.full((1, 8, 8), 99, np.int16))
    new = pl.DataFrame({"patient": ["new"], "series": ["new"], "bleed": [1]})
    writer.close(pl.concat([small_store.index, new], how="diagonal"))
    grown = Store.open(tmp_path / "grown")
    assert grown.read(np.arange(11))[:, 0, 0].tolist() == [*range(10), 99]


def test_places_without_a_store_say_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans.zip").write_bytes(b"PK")
    with pytest.raises(StoreError, match=r"there is no store at .*missing\. Make one with: houns"):
        Store.open(tmp_path / "missing")
    with pytest.raises(StoreError, match=r"scans is no store: it has no store\.json\. If it holds"):
        Store.open(tmp_path / "scans")
    with pytest.raises(
        StoreError, match=r"zip is no store: it is a file.*ingest .*zip --out STORE"
    ):
        Store.open(tmp_path / "scans.zip")
