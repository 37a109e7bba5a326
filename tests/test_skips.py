"""Under CI=true only tests that need a GPU may skip."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.fixture
def browser():
    pytest.skip("no browser here")

def test_of_a_page(browser): pass

def test_of_a_package(): pytest.importorskip("no_such_package")

@pytest.mark.gpu
@pytest.mark.skipif(True, reason="no GPU here")
def test_on_a_gpu(): pass

def test_that_runs(): pass
"""


@pytest.mark.parametrize(
    ("ci", "counts"),
    [("true", "1 failed, 1 passed, 1 skipped, 1 error"), ("", "1 passed, 3 skipped")],
)
def test_what_skips_without_leave_has_failed(tmp_path, ci, counts):
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs a GPU")
    (tmp_path / "test_some.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, env={**os.environ, "CI": ci}, capture_output=True, text=True,
    )  # fmt: skip
    assert counts in done.stdout.splitlines()[-1], done.stdout
    assert ("no browser here" in done.stdout) == bool(ci)
