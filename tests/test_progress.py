import re

import pytest

from hounsfield.progress import bar

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)


def test_a_long_note_is_cut_and_the_numbers_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("fine-tuning", total=1250) as cells:
        cells.advance(1250)
        cells.note("done: histogram on haemorrhage (published) at 0.1, repeat 2, fold 4")
    drawn = CONTROL.sub("", capsys.readouterr().err)
    last = re.split(r"[\r\n]+", drawn.strip("\r\n"))[-1]
    assert re.search(r"fine-tuning ━+ 1250/1250 0:00:\d\d left 0:00:00 done: \w+.*…$", last)
    assert len(last) == 80


def test_no_work_shows_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("headers", total=0):
        pass
    assert capsys.readouterr().err == ""
