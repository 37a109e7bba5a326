"""What the pages tell people to type must exist."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from hounsfield.cli import app
from hounsfield.config import parse
from hounsfield.methods import GROUP, METHODS
from hounsfield.study.config import StudyConfig
from hounsfield.train.pretrain import PretrainConfig
from pages.blocks import PAGES, ROOT, Block, blocks, name_of

VERBS = typer.main.get_command(app).commands
LEAST_STUDY = {
    "stores": {"head": "store"},
    "tasks": {"bleed": {"store": "head", "label": "bleed"}},
    "arms": ["scratch"],
}


def commands(page: Path) -> list[list[str]]:
    """The words of every `$ hounsfield ...` in a page, continued lines joined."""
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^\s*\$ (?:\w+=\S+ )*hounsfield (.+)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    for verb, *words in commands(page):
        assert verb in VERBS, verb
        known = {option for part in VERBS[verb].params for option in part.opts}
        asked = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert asked <= known, (verb, asked - known)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_word_of_a_page_is_a_target(page: Path) -> None:
    targets = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in re.findall(r"(?:\$ |`)make ([a-z]+)", page.read_text()):
        assert word in targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), target


TABLES = [
    pytest.param(block, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page))
    if block.kind == "toml"
]


@pytest.mark.parametrize("block", TABLES)
def test_every_table_of_a_page_is_a_config_or_a_part_of_one(block: Block) -> None:
    values = tomllib.loads(block.text)
    if "project" in values:
        assert list(values["project"]["entry-points"]) == [GROUP]
    elif values.keys() <= {*PretrainConfig.model_fields, *METHODS}:
        parse(PretrainConfig, {"stores": ["store"]} | values, where="page")
    else:
        parse(StudyConfig, _completed(values), where="page")


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """A part of a study made whole; its tasks may lack what decides where labels come from."""
    tasks = {
        name: {"store": "head", "label": "bleed"} | task
        for name, task in (values.get("tasks") or LEAST_STUDY["tasks"]).items()
    }
    named = {"pretrain": {arm: {} for arm in values.get("arms", ()) if arm in METHODS}}
    return LEAST_STUDY | named | values | {"tasks": tasks}
