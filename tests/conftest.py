"""What every test process needs before the first test, and the browser."""

import os
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Tiny networks gain nothing from more threads, and side by side they starve. Torch reads this once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A suite that was started in the background has Ctrl-C ignored; tests of Ctrl-C, and the processes
# that they start, need it back.
signal.signal(signal.SIGINT, signal.default_int_handler)

CT = Path(os.environ.get("CT", Path(__file__).parents[1] / ".." / "shared" / "ct")).resolve()
REAL = "data/test_real_ct.py"

# Real CT lies beside the project, not in it: its tests exist only where it does.
collect_ignore = [] if CT.is_dir() else [REAL]


def pytest_report_header() -> str:
    return f"real CT: {CT}" if CT.is_dir() else f"real CT: none at {CT}, so without tests/{REAL}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, pytest.TestReport]:
    """What is skipped under CI=true has failed, unless it needs a GPU."""
    report: pytest.TestReport = yield
    excused = item.get_closest_marker("gpu") is not None or hasattr(report, "wasxfail")
    if report.skipped and os.environ.get("CI") == "true" and not excused:
        report.outcome = "failed"
        report.longrepr = (
            f"skipped under CI=true, where only what needs a GPU may: {report.longrepr}"
        )
    return report


CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Debian's Chromium with a fresh profile. CI installs it; see `.ci/run`."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()
