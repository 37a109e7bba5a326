import json
from importlib import resources
from pathlib import Path

import pytest

from hounsfield.demo import MADE_WITH, demo
from hounsfield.errors import OutputError


def run(out: Path) -> None:
    demo(out, jobs=1, say=lambda _line: pytest.fail("the demo has begun"))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError) as refusal:
        run(tmp_path)
    assert str(refusal.value) == (
        f"{tmp_path} holds thesis.txt, which is not this demo's. Choose a new folder."
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_somebodys_study_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("seed = 7")
    with pytest.raises(OutputError, match=r"has another study\.toml"):
        run(tmp_path)
    assert (tmp_path / "study.toml").read_text() == "seed = 7"


@pytest.mark.parametrize("theirs", [None, {**MADE_WITH, "version": "0.0.9"}])
def test_a_demo_of_another_version_is_not_gone_on_with(tmp_path: Path, theirs: dict | None) -> None:
    (tmp_path / "archive").mkdir()
    if theirs is not None:
        (tmp_path / "demo.json").write_text(json.dumps(theirs))
    found = "no demo.json" if theirs is None else "version 0.0.9, patients 48, seed 0, size_px 64"
    with pytest.raises(OutputError, match=f"has {found}; this demo has version .* new folder"):
        run(tmp_path)
    assert not list((tmp_path / "archive").iterdir())


def test_a_demo_that_was_begun_goes_on(tmp_path: Path) -> None:
    def begun(line: str) -> None:
        raise InterruptedError(line)

    for _ in range(2):
        with pytest.raises(InterruptedError, match="1/4  phantom"):
            demo(tmp_path / "demo", jobs=1, say=begun)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["demo.json"]


def test_the_demos_study_names_the_store_beside_it_and_all_that_it_promises(tmp_path: Path) -> None:
    from hounsfield.study.config import load_study

    text = resources.files("hounsfield").joinpath("demo.toml").read_text()
    (tmp_path / "study.toml").write_text(text)
    study = load_study(tmp_path / "study.toml")
    assert study.stores == {"phantom": str(tmp_path / "store")}
    assert list(study.tasks) == ["bleed", "region"]
    assert study.arms == ("scratch", "spark", "moco_v2")
    assert study.fractions == (1.0, 0.25, 0.1)
    assert study.repeats == 3
