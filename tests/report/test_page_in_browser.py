"""The page in Debian's Chromium, as a reader meets it. CI installs the browser; see `.ci/run`."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Literal

import pytest
from fake_study import FakeTask, fake_study
from playwright.sync_api import Browser, BrowserContext, Page

from hounsfield.report.make import report

NARROW, WIDE = 400, 1600
HOSTILE = "<script>window.broken=1</script>\"'`${broken=1}&amp;"


@dataclass
class Visit:
    """A page that was opened, and whatever it asked for or complained about."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    broken = {("bleed", "spark", 0.1, 0): "unfinished", ("region", "scratch", 0.25, 1): "failed"}
    return report(fake_study(tmp_path_factory.mktemp("report") / "study", broken=broken)).page


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Visit]]:
    contexts: list[BrowserContext] = []

    def visit(path: Path, *, width: int = WIDE, dark: bool = False) -> Visit:
        scheme: Literal["dark", "light"] = "dark" if dark else "light"
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        )
        seen = Visit(contexts[-1].new_page())
        seen.page.on("request", lambda request: seen.asked.append(request.url))
        seen.page.on("console", lambda message: seen.complaints.append(message.text))
        seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        seen.page.goto(path.as_uri())
        seen.page.wait_for_selector("html[data-ready=yes]", state="attached", timeout=60_000)
        return seen

    yield visit
    for context in contexts:
        context.close()


def figures_without_marks(page: Page) -> list[str]:
    return page.evaluate(
        """() => [...document.querySelectorAll('.drawing')].filter((one) => {
            const svg = one.querySelector('svg');
            const marks = svg ? svg.querySelectorAll('[role=graphics-symbol], .mark-line path, '
                + '.mark-rule line, .mark-symbol path, .mark-rect path') : [];
            return marks.length < 2 || svg.getBoundingClientRect().height < 80;
        }).map((one) => one.dataset.drawing)"""
    )


def axe(page: Page) -> list[str]:
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    found = page.evaluate("() => axe.run(document)")
    assert len(found["passes"]) > 20  # axe has really looked
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


def test_the_page_asks_for_nothing_and_complains_about_nothing(open_page, page_file: Path) -> None:
    seen = open_page(page_file)
    assert [url for url in seen.asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert seen.complaints == []


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_every_figure_is_drawn_inside_its_frame(open_page, page_file: Path, width: int) -> None:
    page = open_page(page_file, width=width).page
    drawn = {"curves": 3, "differences": 3, "drops": 3, "pre-training": 3, "one model": 2 * 4}
    assert page.locator(".drawing").count() == sum(drawn.values())
    assert figures_without_marks(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    beyond = page.evaluate(
        """() => [...document.querySelectorAll('.drawing svg')].filter((svg) =>
            svg.getBoundingClientRect().right >
            svg.closest('figure').getBoundingClientRect().right).length"""
    )
    assert beyond == 0


@pytest.mark.parametrize("width", [NARROW, WIDE])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_barrier(open_page, page_file: Path, width: int, dark: bool) -> None:
    page = open_page(page_file, width=width, dark=dark).page
    for fold in page.locator("details").all():
        fold.evaluate("fold => fold.open = true")
    assert axe(page) == []


def test_light_and_dark_are_different_papers(open_page, page_file: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = open_page(page_file).page.evaluate(colour)
    dark = open_page(page_file, dark=True).page.evaluate(colour)
    assert light != dark


def test_the_keyboard_reaches_everything_that_can_be_used(open_page, page_file: Path) -> None:
    page = open_page(page_file).page
    wanted = page.locator("a[href], button, select, summary, .scroll, pre").count()
    hidden = page.locator("details:not([open]) :is(a[href], button, select, .scroll, pre)").count()
    reached = set()
    for _ in range(wanted * 2):
        page.keyboard.press("Tab")
        place = page.evaluate(
            """() => { const one = document.activeElement;
                one.dataset.place ??= String(document.querySelectorAll('[data-place]').length);
                return one === document.body ? '' : one.dataset.place
                    + (getComputedStyle(one).outlineStyle === 'none' ? ' without a ring' : ''); }"""
        )
        if place:
            reached.add(place)
    assert not [place for place in reached if place.endswith("without a ring")]
    assert len(reached) == wanted - hidden


def test_an_arm_is_isolated_in_every_figure_and_let_go_again(open_page, page_file: Path) -> None:
    page = open_page(page_file).page
    lines = page.locator("[data-drawing=curve-bleed-fair-slice] .mark-line path")
    strengths = lambda: [float(one.get_attribute("opacity") or 1) for one in lines.all()]  # noqa: E731
    assert strengths() == [1, 1, 1, 1]
    button = page.get_by_role("button", name="SparK", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    page.wait_for_timeout(200)
    assert sorted(strengths())[-1] == 1
    assert sum(strength < 0.1 for strength in strengths()) == 3
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    assert strengths() == [1, 1, 1, 1]


def test_another_baseline_shows_other_differences(open_page, page_file: Path) -> None:
    page = open_page(page_file).page
    marks = page.locator("[data-drawing=differences-bleed-fair-slice] .mark-symbol path")
    labels = lambda: {one.get_attribute("aria-label") for one in marks.all()}  # noqa: E731
    before = labels()
    page.get_by_label("Baseline", exact=True).select_option("SparK")
    page.wait_for_timeout(200)
    assert len(before) == len(labels()) == 3 * 3  # fractions, arms but for the baseline
    assert not before & labels()


def test_another_cell_shows_another_confusion_matrix(open_page, page_file: Path) -> None:
    page = open_page(page_file).page
    marks = "[aria-roledescription='text mark container'] text"
    numbers = page.locator(f"[data-drawing=confusion-bleed] {marks}")
    before = numbers.all_text_contents()
    page.get_by_label("Confusion matrix of").first.select_option("Scratch")
    page.wait_for_timeout(200)
    after = numbers.all_text_contents()
    images = [sum(int(one.replace(",", "")) for one in shown) for shown in (before, after)]
    assert before != after
    assert images[0] == images[1] > 100


def test_a_heading_sorts_by_value_not_by_letters(open_page, page_file: Path) -> None:
    page = open_page(page_file).page
    table = page.locator("#numbers table")
    column = table.locator("thead th").all_inner_texts()
    place = next(i for i, text in enumerate(column) if text.startswith("value"))
    head = table.locator("thead th").nth(place)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    cells = table.locator(f"tbody tr td:nth-child({place + 1})").all_inner_texts()
    values = [float(cell.split()[0].replace("\N{MINUS SIGN}", "-")) for cell in cells]
    assert values == sorted(values)


def test_the_page_prints_whole(open_page, page_file: Path, tmp_path: Path) -> None:
    from pypdf import PdfReader

    page = open_page(page_file, dark=True).page
    page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
    sheets = PdfReader(tmp_path / "page.pdf").pages
    text = " ".join(sheet.extract_text() for sheet in sheets)
    assert 4 <= len(sheets) <= 20
    assert "AUC" in text
    assert "Brier score" not in text  # of the long table only the primary metric goes on paper
    for title in ("Label curves", "Differences between arms", "Provenance", "Limits"):
        assert title in text
    assert "Press an arm" not in text
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 33, 39)"


def test_what_comes_from_a_file_is_text(open_page, tmp_path: Path) -> None:
    study = fake_study(
        tmp_path / "study",
        tasks=(FakeTask(HOSTILE, (HOSTILE, "b" + HOSTILE)),),
        arms=("scratch", HOSTILE, "moco_v2"),
        repeats=2,
    )
    seen = open_page(report(study).page)
    assert seen.complaints == []
    assert seen.page.evaluate("window.broken") is None
    assert seen.page.get_by_role("heading", name=HOSTILE).count() >= 1
    assert seen.page.get_by_role("button", name=HOSTILE).count() == 1
    seen.page.get_by_role("button", name=HOSTILE).click()
    seen.page.locator(".mark-symbol path").nth(1).hover(force=True)
    assert seen.page.evaluate("window.broken") is None


@pytest.mark.parametrize("left", ["study.json", "cells", "one arm"])
def test_a_half_finished_study_says_what_is_missing(open_page, tmp_path: Path, left: str) -> None:
    study = fake_study(tmp_path / "study", judged=left == "one arm", rich=False)
    if left == "study.json":
        shutil.rmtree(study / "cells")
    if left == "one arm":
        for cell in study.glob("cells/*-moco_v2-*"):
            shutil.rmtree(cell)
    seen = open_page(report(study).page)
    assert seen.complaints == []
    assert figures_without_marks(seen.page) == []
    limits = seen.page.locator("#limits").inner_text()
    if left != "cells":
        assert "not there: the study is not finished" in limits
    assert axe(seen.page) == []
