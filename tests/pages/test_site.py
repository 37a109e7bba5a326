"""The site: built without a warning, asking nobody, its reference up to date with the code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

import generate
from hounsfield.config import Config
from pages.blocks import ROOT

SEEN = ("index.html", "concepts.html", "api.html", "reference/study.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return out


def test_the_site_is_built_without_a_word(site: Path) -> None:
    assert all((site / page).is_file() for page in SEEN)


def test_a_link_of_a_checkout_leads_to_the_page_on_the_site(site: Path) -> None:
    assert 'href="statistics.html"' in (site / "index.html").read_text()
    assert 'href="benchmarks.html"' in (site / "statistics.html").read_text()
    assert "weights_file.py" in (site / "how-to" / "own-weights.html").read_text()
    assert not list(site.rglob("*.py"))


def test_the_site_asks_for_nothing_from_outside(site: Path, browser: Browser) -> None:
    asked: list[str] = []
    tab = browser.new_page()
    tab.on("request", lambda request: asked.append(request.url))
    for page in SEEN:
        tab.goto((site / page).as_uri(), wait_until="networkidle")
    tab.close()
    assert len(asked) > len(SEEN)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_reference_and_the_figures_are_those_of_the_code() -> None:
    made = generate.pages()
    stale = [path for path, text in made.items() if (ROOT / "docs" / path).read_text() != text]
    assert stale == [], "run `make docs`"


def test_a_key_without_a_sentence_is_refused() -> None:
    class Told(Config):
        """Two keys.

        Attributes:
            one: The first.
        """

        one: int = 1
        two: int = 2

    with pytest.raises(ValueError, match=r"Told\.two has no sentence"):
        generate.table(Told, "")


def test_a_type_is_told_in_words_that_hold_for_toml() -> None:
    from hounsfield.study.config import StudyConfig

    told = {
        name: generate.type_of(field.annotation, tuple(field.metadata))
        for name, field in StudyConfig.model_fields.items()
    }
    assert told["repeats"] == "whole number above 0"
    assert told["val_share"] == "number from 0 below 1"
    assert told["keep_out"] == '`"val_and_test"` or `"test"` or `"labelled"`'
    assert told["fractions"] == "list of number"
    assert told["stores"] == "table of text"
