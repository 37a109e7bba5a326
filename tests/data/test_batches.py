from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from hounsfield.data.batches import Batches, Pool
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.errors import ConfigError

ALL = np.arange(10, dtype=np.int64)


def test_a_step_loads_the_same_slices_whatever_was_loaded_before(small_store: Store) -> None:
    once = Batches([small_store], [ALL], batch=4, seed=3)
    late = Batches([small_store], [ALL], batch=4, seed=3)
    history = [once.load(step).index for step in range(8)]
    assert torch.equal(late.load(7).index, history[7])
    assert torch.equal(late.load(2).index, history[2])


def test_every_epoch_sees_every_slice_once_in_an_order_of_its_own(small_store: Store) -> None:
    batches = Batches([small_store], [ALL], batch=4, seed=0)
    seen = torch.cat([batches.load(step).index for step in range(5)]).tolist()
    first, second = seen[:10], seen[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_a_batch_larger_than_the_set_is_full_and_even(small_store: Store) -> None:
    batches = Batches([small_store], [ALL[:3]], batch=8, seed=0)
    counts = Counter(batches.load(0).index.tolist())
    assert sum(counts.values()) == 8
    assert set(counts.values()) <= {2, 3}


def test_images_units_and_index_belong_together(small_store: Store) -> None:
    batch = Batches([small_store], [ALL[::-1].copy()], batch=10, seed=1).load(0)
    rows = 9 - batch.index  # the rows were given in descending order
    assert torch.equal(batch.images[:, 0, 0, 0].long(), rows)
    assert torch.equal(batch.is_hu, rows % 2 == 0)
    assert batch.images.dtype == torch.int16


def test_several_stores_are_one_sequence(small_store: Store, tmp_path: Path) -> None:
    other = write_store(
        tmp_path / "other",
        np.full((2, 8, 8), 50, np.int16),
        pl.DataFrame({"patient": ["x", "x"], "series": ["x", "x"]}),
    )
    pool = Pool([small_store, other], [ALL[:2], np.array([0, 1])])
    batch = pool.load(np.arange(len(pool)))
    assert batch.images[:, 0, 0, 0].tolist() == [0, 1, 50, 50]
    assert batch.is_hu.tolist() == [True, False, True, True]


def test_ranks_share_the_very_batch_of_one_process(small_store: Store) -> None:
    whole = Batches([small_store], [ALL], batch=4, seed=5).load(3).index
    parts = [
        Batches([small_store], [ALL], batch=4, seed=5, rank=rank, ranks=2).load(3).index
        for rank in range(2)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_prefetched_batches_are_the_loaded_ones_and_stopping_early_hangs_nothing(
    small_store: Store,
) -> None:
    batches = Batches([small_store], [ALL], batch=4, seed=2)
    ahead = [batch.index for batch in batches.prefetch(3, 9)]
    assert len(ahead) == 6
    assert all(
        torch.equal(index, batches.load(step).index) for step, index in enumerate(ahead, start=3)
    )
    stopped = batches.prefetch(0, 1_000_000)
    next(stopped)
    stopped.close()
    assert batches.waited_s > 0


def test_nothing_to_load_and_stores_of_two_sizes_are_refused(
    small_store: Store, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no slice is left"):
        Batches([small_store], [ALL[:0]], batch=4, seed=0)
    other = write_store(
        tmp_path / "other",
        np.zeros((1, 4, 4), np.int16),
        pl.DataFrame({"patient": ["x"], "series": ["x"]}),
    )
    with pytest.raises(ConfigError, match="4, 8 px"):
        Pool([small_store, other], [ALL, ALL[:1]])
