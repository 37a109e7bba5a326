import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

import hounsfield
from hounsfield.data.store import Store
from hounsfield.data.store_writer import write_store
from hounsfield.errors import InputError, WeightsError
from hounsfield.models.backbone import create

PAGE = Path(__file__).parents[1] / "docs" / "library.md"
FACTS = {
    "method": "spark",
    "backbone": "resnet10_tiny",
    "channels": "1",
    "image_size": "32",
    "window_hu": "-1000.0,1000.0",
}


def a_store(path: Path) -> Store:
    """Four patients with three slices; two of them bleed."""
    images = np.random.default_rng(0).integers(-1000, 1000, (12, 32, 32)).astype(np.int16)
    patients = [f"p{row // 3}" for row in range(12)]
    index = pl.DataFrame(
        {
            "patient": patients,
            "series": patients,
            "units": ["hu"] * 9 + ["display"] * 3,
            "bleed": [int(patient in ("p1", "p2")) for patient in patients],
        }
    )
    return write_store(path, images, index)


def a_run(folder: Path, **facts: str) -> Path:
    folder.mkdir(parents=True)
    net = create("resnet10_tiny", seed=4).net
    save_file(dict(net.state_dict()), folder / "encoder.safetensors", metadata=FACTS | facts)
    return folder


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_store(tmp_path / "store")
    a_run(tmp_path / "runs" / "spark")
    (tmp_path / "study").mkdir()
    pl.DataFrame(
        {"kind": ["level"], "arm": ["spark"], "metric": ["auc"]}
        | {"estimate": [0.8], "low": [0.7], "high": [0.9]}
    ).write_parquet(tmp_path / "study" / "results.parquet")
    monkeypatch.chdir(tmp_path)
    text = "".join(
        "\n" if line.startswith("```") else line
        for line in PAGE.read_text().splitlines(keepends=True)
    )
    examples = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    told: list[str] = []
    result = doctest.DocTestRunner().run(examples, out=told.append)
    assert result.attempted > 10
    assert result.failed == 0, "".join(told)


def test_the_door_is_light_and_opens_what_it_names() -> None:
    program = (
        "import sys, hounsfield\n"
        "heavy = sorted({'torch', 'timm', 'polars', 'numpy'} & set(sys.modules))\n"
        "print(heavy, all(hasattr(hounsfield, name) for name in hounsfield.__all__))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] True\n"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = hounsfield.nothing


def test_features_are_those_of_the_windowed_slices(tmp_path: Path) -> None:
    store = a_store(tmp_path / "store")
    encoder = hounsfield.load_encoder(a_run(tmp_path / "run"))
    features = hounsfield.embed(store, encoder, batch=5)
    images = store.read(np.arange(12)).astype(np.float32)
    unit = np.where(store.is_hu[:, None, None], (images + 1000) / 2000, images / 32767).clip(0, 1)
    net = create("resnet10_tiny", seed=4).net.eval()
    with torch.no_grad():
        expected = net(torch.from_numpy((unit - 0.5) / 0.25)[:, None])
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_rows_are_embedded_in_their_order(tmp_path: Path) -> None:
    store = a_store(tmp_path / "store")
    encoder = hounsfield.load_encoder(a_run(tmp_path / "run"))
    rows = np.array([7, 2, 7])
    np.testing.assert_allclose(
        hounsfield.embed(store, encoder, rows), hounsfield.embed(store, encoder)[rows], rtol=1e-5
    )


def test_what_a_file_does_not_say_can_be_given(tmp_path: Path) -> None:
    save_file(dict(create("resnet10_half", channels=3).net.state_dict()), tmp_path / "a")
    encoder = hounsfield.load_encoder(tmp_path / "a", channels=3, image_size=64, window="brain")
    assert encoder.backbone.name == "resnet10_half"  # found out
    assert (encoder.backbone.channels, encoder.image_size) == (3, 64)
    assert encoder.window_hu == (0, 80)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", "1000000000000"),
        ("image_size", "-3"),
        ("channels", "many"),
        ("channels", "0000000640"),
        ("window_hu", "nan,3"),
        ("window_hu", "80,0"),
        ("window_hu", "1"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(WeightsError, match=f"says {key} = "):
        hounsfield.load_encoder(a_run(tmp_path / "run", **{key: value}))


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no results"):
        hounsfield.read_results(tmp_path)
    (tmp_path / "results.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read"):
        hounsfield.read_results(tmp_path)
