"""The tutorial and the how-tos, followed to the letter in an empty folder."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from hounsfield import cli
from pages.blocks import ROOT, blocks, commands, matches, name_of

TUTORIAL = ROOT / "docs" / "tutorial.md"
FOLLOWED = [TUTORIAL, *sorted((ROOT / "docs" / "how-to").glob("*.md"))]


def test_the_pages_hold_when_they_are_followed_to_the_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for page in FOLLOWED:
        for block in blocks(page):
            if block.title:
                Path(block.title).write_text(block.text)
            for command, shown in commands(block) if block.run else ():
                code, printed = typed(command, monkeypatch, capsys)
                assert code == 0, (name_of(page), command, printed)
                assert not shown or matches(shown, printed), (name_of(page), command, printed)


def typed(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code and output of a command; `hounsfield` runs in this process, which is warm."""
    place = re.match(r"PYTHONPATH=(\S+) ", command)
    if place:
        monkeypatch.syspath_prepend(place[1])
        command = command.removeprefix(place[0])
    if not command.startswith("hounsfield "):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout
    monkeypatch.setattr("sys.argv", shlex.split(command))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main()
    seen = capsys.readouterr()
    return int(end.value.code or 0), seen.out if not end.value.code else seen.err


@pytest.mark.parametrize(
    ("shown", "printed", "holds"),
    [
        ("a\n...\nz\n", "a\nz\n", True),
        ("a\n...\nz\n", "a\nb\nc\nz\n", True),
        ("a\n...\nz\n", "a\nb\n", False),
        ("loss ..., done\n", "loss 0.3, done\n", True),
        ("loss ..., done\n", "loss 0.3\ndone\n", False),
        ("a\n", "a\nb\n", False),
        ("a.b\n", "axb\n", False),
    ],
)
def test_a_page_is_held_to_what_it_shows(shown: str, printed: str, holds: bool) -> None:
    assert matches(shown, printed) is holds
