"""A store and a configuration so small that a whole pre-training takes a second."""

import numpy as np
import polars as pl

from hounsfield.config import parse
from hounsfield.data.store_writer import write_store
from hounsfield.train.pretrain import PretrainConfig

SMALL = {
    "byol": {"hidden_dim": 64, "projection_dim": 16},
    "moco_v2": {"projection_dim": 16},
    "spark": {"decoder_width": 32},
    "swav": {"prototypes": 16, "hidden_dim": 32, "projection_dim": 16, "queue_size": 0},
}


def store(path, *, labels=None):
    blobs = np.zeros((24, 32, 32), dtype=np.int16)
    for row in range(24):
        blobs[row, row : row + 8, 4 : 4 + 8 * (1 + row % 3)] = 100 * (row - 12)
    index = pl.DataFrame(
        {
            "patient": [f"p{row // 2}" for row in range(24)],
            "series": [f"s{row // 2}" for row in range(24)],
            **(labels or {}),
        }
    )
    return write_store(path, blobs, index)


def config(path, method, **values):
    plain = {
        "method": method,
        "stores": [str(path)],
        "backbone": "resnet10_tiny",
        "image_size": 32,
        "batch_size": 8,
        "budget": {"steps": 40},
        "loop": {"log_every": 5, "watch_every": 5, "checkpoint_every": 4, "tensorboard": False},
        "device": "cpu",
    }
    return parse(PretrainConfig, {**plain, **values}, where="test")
