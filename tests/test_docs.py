"""What the pages tell people to type must exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from hounsfield.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
VERBS = typer.main.get_command(app).commands


def commands(page: Path) -> list[list[str]]:
    """The words of every `$ hounsfield ...` in a page, continued lines joined."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^\s*\$ hounsfield (.+)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    for verb, *words in commands(page):
        assert verb in VERBS, verb
        known = {option for part in VERBS[verb].params for option in part.opts}
        asked = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert asked <= known, (verb, asked - known)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target
