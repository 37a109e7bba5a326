import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store

sys.path.insert(0, str(Path(__file__).parent))  # for the makers of test files beside the tests


@pytest.fixture
def small_store(tmp_path: Path) -> Store:
    """Ten slices of 8 px in three shards: slice k is filled with k; odd ones are display values."""
    images = np.repeat(np.arange(10, dtype=np.int16), 64).reshape(10, 8, 8)
    index = pl.DataFrame(
        {
            "patient": [f"p{k // 4}" for k in range(10)],
            "series": [f"s{k // 4}" for k in range(10)],
            "units": ["display" if k % 2 else "hu" for k in range(10)],
            "bleed": [k % 2 for k in range(10)],
        }
    )
    return write_store(tmp_path / "small", images, index, shard_bytes=4 * 128)
