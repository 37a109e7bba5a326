"""The page: sections from templates, escaped throughout; figures drawn by Vega inside the page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hounsfield import __version__
from hounsfield.report import words
from hounsfield.report.drawing import VEGA_LITE, Figure
from hounsfield.report.palette import Look, looks

_TEMPLATES = Environment(
    loader=PackageLoader("hounsfield.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


@dataclass(frozen=True)
class Head:
    """A column's heading; numbers stand right."""

    text: str
    number: bool = False


@dataclass(frozen=True)
class Cell:
    """A table's cell; `key` is what it sorts by, `style` its class."""

    text: str
    key: str | float | None = None
    style: str = ""


@dataclass(frozen=True)
class Grid:
    """A table of the page; of its rows only the first `printed` go on paper, all without it."""

    caption: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False
    printed: int | None = None


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, its heading, its markup, and the figures inside it."""

    id: str
    title: str
    body: Markup
    figures: Sequence[Figure] = ()


def grid(caption: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Grid:
    """A table of plain texts; a column of numbers alone stands right."""
    cells = [[cell if isinstance(cell, Cell) else Cell(str(cell)) for cell in row] for row in rows]
    return Grid(caption, [Head(head) for head in heads], cells)


def render(template: str, **values: Any) -> Markup:
    """The markup of a part of the page; every plain string in `values` comes out escaped."""
    return Markup(_TEMPLATES.get_template(f"{template}.html.j2").render(**values))  # noqa: S704


def page(
    *,
    title: str,
    subtitle: str,
    answer: Sequence[str],
    limits: Sequence[str],
    sections: Sequence[Section],
    arms: Sequence[str],
    footer: str,
) -> str:
    """The whole page as one file that asks for nothing from outside."""
    drawings = {figure.name: figure.spec for section in sections for figure in section.figures}
    return render(
        "page",
        version=__version__,
        title=title,
        subtitle=subtitle,
        answer=answer,
        limits=limits,
        sections=sections,
        keys=[_key(arm, place, look) for place, (arm, look) in enumerate(looks(arms).items())],
        footer=footer,
        css=Markup(_own("page.css") + _arm_colours(arms)),  # noqa: S704 - our own files
        js=Markup(_own("page.js")),  # noqa: S704
        drawings=embedded(drawings),
        vega=_vega(),
    )


def embedded(value: Any) -> Markup:
    """JSON that may stand inside a script element: no text in it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704


@cache
def _vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed in one script, as `vl-convert` carries them."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return Markup(bundle.replace("</script", "<\\/script"))  # noqa: S704


def _own(name: str) -> str:
    return files("hounsfield.report").joinpath("templates", name).read_text(encoding="utf-8")


def _arm_colours(arms: Sequence[str]) -> str:
    look = list(looks(arms).values())
    light = "".join(f"--arm-{place}:{one.light};" for place, one in enumerate(look))
    dark = "".join(f"--arm-{place}:{one.dark};" for place, one in enumerate(look))
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def _key(arm: str, place: int, look: Look) -> Mapping[str, Any]:
    return {"name": words.arm_name(arm), "swatch": render("swatch", place=place, look=look)}
