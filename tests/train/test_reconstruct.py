import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from hounsfield.config import parse
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.errors import ConfigError, WeightsError
from hounsfield.seeding import stream
from hounsfield.train.pretrain import PretrainConfig, pretrain
from hounsfield.train.reconstruct import GAP, HIDDEN, _load, reconstruct

SIZE = 96


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    noise = stream(0, "images").normal(0, 200, size=(12, SIZE, SIZE)).astype(np.int16)
    names = [f"p{row // 4}" for row in range(12)]
    index = pl.DataFrame({"patient": names, "series": names})
    return write_store(tmp_path_factory.mktemp("data") / "store", noise, index)


def config(store: Store, method: str) -> PretrainConfig:
    values = {
        "method": method,
        "stores": [str(store.path)],
        "backbone": "resnet10_tiny",
        "image_size": SIZE,
        "batch_size": 4,
        "budget": {"steps": 1},
        "loop": {"tensorboard": False},
        "device": "cpu",
    }
    options = {"spark": {"decoder_width": 32}} if method == "spark" else {}
    return parse(PretrainConfig, {**values, **options}, where="test")


def test_a_row_shows_the_input_what_is_visible_and_the_whole_redrawn(store, tmp_path):
    run = pretrain(config(store, "spark"), tmp_path / "run").folder

    reconstruct(run, store, tmp_path / "picture.png", slices=3)

    sheet = np.asarray(Image.open(tmp_path / "picture.png"))
    large = 2 * SIZE + GAP  # enlarged, so that it can be seen
    assert sheet.shape == (3 * large + GAP, 3 * large + GAP, 3)
    framed = sheet[GAP:, GAP:].reshape(3, large, 3, large, 3).swapaxes(1, 2)
    cells = framed[:, :, : 2 * SIZE : 2, : 2 * SIZE : 2]
    assert (cells == framed[:, :, 1 : 2 * SIZE : 2, 1 : 2 * SIZE : 2]).all()
    assert (sheet[:GAP] == 255).all()
    whole, seen, redrawn = cells.swapaxes(0, 1)
    hidden = (seen == HIDDEN).all(axis=-1)
    patches = hidden.reshape(3, 3, 32, 3, 32).mean(axis=(2, 4))
    assert set(patches.flat) == {0.0, 1.0}  # whole patches
    assert patches.sum() == 3 * 5  # five of nine
    assert (whole == seen)[~hidden].all()
    assert (whole == redrawn)[~hidden].all()
    assert (whole != redrawn)[hidden].mean() > 0.5


def test_equal_seeds_draw_equal_pictures(store, tmp_path):
    run = pretrain(config(store, "spark"), tmp_path / "run").folder

    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        reconstruct(run, store, tmp_path / f"{name}.png", slices=2, seed=seed)

    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_a_run_of_a_method_that_draws_nothing_is_refused(store, tmp_path):
    run = pretrain(config(store, "moco_v2"), tmp_path / "run").folder

    with pytest.raises(ConfigError, match=r"a run of 'moco_v2', which draws nothing"):
        reconstruct(run, store, tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()


def test_a_folder_without_a_run_is_refused(store, tmp_path):
    with pytest.raises(WeightsError, match=r"no run at .*nowhere\. Give the folder"):
        reconstruct(tmp_path / "nowhere", store, tmp_path / "picture.png")


def test_an_old_run_with_the_papers_settings_is_read_as_it_was_trained(store, tmp_path):
    run = pretrain(config(store, "spark"), tmp_path / "run").folder
    told = json.loads((run / "config.json").read_bytes())
    told["config"]["settings"] = "paper"  # which fills in 0.05 where nothing is said
    del told["config"]["drop_path"]
    (run / "config.json").write_text(json.dumps(told))
    assert _load(run)[1].drop_path == 0.0
