"""Write docs/reference/ from the code, and the tables of docs/results.md from the kept numbers.

A key's sentence is its line under "Attributes:" in its class's docstring; a verb's and an option's
are those of `--help`.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from typer.models import OptionInfo
from typer.utils import get_params_from_function

import figures
import tables
from hounsfield.classify.finetune import FinetuneConfig
from hounsfield.cli import VERBS
from hounsfield.config import Config
from hounsfield.files import write_text
from hounsfield.methods import METHODS, find
from hounsfield.study.config import StudyConfig
from hounsfield.train.papers import PAPERS, SMALL, SMALL_OPTIONS
from hounsfield.train.pretrain import PretrainConfig

DOCS = Path(__file__).parent
MADE = "<!-- Made from the code by `make docs`. Change the code, not this page. -->\n\n"
WORDS = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
}
SCALARS = {WORDS[kind] for kind in (str, int, float, bool)}
LIMITS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}


def pages() -> dict[str, str]:
    """Path below docs/ -> text of every generated file."""
    return {
        "reference/verbs.md": MADE + verbs(),
        "reference/pretraining.md": MADE + pretraining(),
        "reference/study.md": MADE + study(),
        "reference/classifier.md": MADE + classifier(),
        "results.md": tables.filled((DOCS / "results.md").read_text()),
        "figures/windows.svg": figures.windows(),
        "figures/ladder.svg": figures.ladder(),
    }


def verbs() -> str:
    """The page of all verbs."""
    parts = ["# Verbs\n\n`hounsfield VERB --help` says the same in the terminal.\n"]
    for panel, functions in VERBS.items():
        parts.append(f"## {panel}\n")
        parts += [_verb(function) for function in functions]
    return "\n".join(parts)


def pretraining() -> str:
    """The page of the keys of a pre-training."""
    head = (
        "# Keys of a pre-training\n\n"
        "What `hounsfield pretrain CONFIG.toml` and a study's `[pretrain.NAME]` understand. In a "
        "study, `method` is the table's name unless it says otherwise; `backbone`, `image_size`, "
        "`device` and `seed` come from the study; `stores` are names in `[stores]`. "
        "[A pre-training](../pretrain.md) shows the keys at work.\n"
    )
    methods = [table(find(name).config_class, name) for name in METHODS]
    return "\n".join([head, *_tables(PretrainConfig), *methods, _filled_in()])


def study() -> str:
    """The page of the keys of a study."""
    head = (
        "# Keys of a study\n\n"
        "What `hounsfield study STUDY.toml` understands. [A study](../study.md) shows them at "
        "work.\n"
    )
    return "\n".join([head, *_tables(StudyConfig)])


def classifier() -> str:
    """The page of the keys of `finetune`."""
    head = (
        "# Keys of a classifier\n\n"
        "What `hounsfield finetune --set KEY=VALUE` understands; the first three have options of "
        "their own. [Bring weights in](../how-to/own-weights.md) shows them at work.\n"
    )
    return "\n".join([head, *_tables(FinetuneConfig)])


def sentences(kind: type[Config]) -> dict[str, str]:
    """What each key means, from the docstring's "Attributes:"."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w[\w, ]*): (.+(?:\n {5,}.+)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in found for name in names.split(", ")}


def type_of(annotation: Any, limits: tuple[Any, ...] = ()) -> str:
    """A type in words that hold for TOML."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return type_of(annotation.__origin__, annotation.__metadata__)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(part)}`" for part in parts)
    if origin in (Union, UnionType):
        kinds = [type_of(part, limits) for part in parts if part is not NoneType]
        rest = [kind for kind in kinds if kind not in SCALARS] + ["value"]
        return " or ".join(rest if len(SCALARS.intersection(kinds)) > 2 else kinds)
    if origin is tuple and parts[-1] is not Ellipsis:
        return f"[{', '.join(type_of(part) for part in parts)}]"
    if origin in (tuple, list):
        return f"list of {type_of(parts[0])}"
    if origin is dict:
        return "table" if parts[1] is Any else f"table of {type_of(parts[1])}"
    if inspect.isclass(annotation) and issubclass(annotation, Config):
        return "table"
    return " ".join([WORDS[annotation], *_limits(limits)])


def _limits(limits: tuple[Any, ...]) -> Iterator[str]:
    for limit in limits:
        for name, word in LIMITS.items():
            if (value := getattr(limit, name, None)) is not None:
                yield f"{word} {value:g}"


def _tables(kind: type[Config], place: str = "") -> Iterator[str]:
    """A table of `kind`'s keys, then one of every config within it."""
    yield table(kind, place)
    for name, field in kind.model_fields.items():
        for steps, inner in _inside(field.annotation):
            yield from _tables(inner, ".".join([*([place] if place else []), name, *steps]))


def _inside(annotation: Any) -> Iterator[tuple[tuple[str, ...], type[Config]]]:
    if inspect.isclass(annotation) and issubclass(annotation, Config):
        yield (), annotation
    named = ("NAME",) if get_origin(annotation) is dict else ()
    for part in get_args(annotation):
        for steps, inner in _inside(part):
            yield (*named, *steps), inner


def table(kind: type[Config], place: str) -> str:
    """A config's keys under the heading `[place]`.

    Raises:
        ValueError: A key has no sentence.
    """
    told, needed = sentences(kind), _needed(kind)
    rows = []
    for name, field in kind.model_fields.items():
        if name not in told:
            raise ValueError(
                f"{kind.__name__}.{name} has no sentence; give it one under Attributes: in the "
                "docstring of its class."
            )
        kinds = type_of(field.annotation, tuple(field.metadata))
        rows.append(f"| `{name}` | {kinds} | {_default(field, name in needed)} | {told[name]} |")
    title = f"`[{place}]`" if place else "At the top"
    first = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    head = "| key | type | default | |\n|---|---|---|---|"
    return "\n".join([f"## {title}\n", f"{first}\n", head, *rows, ""])


def _needed(kind: type[Config]) -> set[str]:
    """The keys without which there is no such config."""
    try:
        kind.model_validate({})
    except ValidationError as error:
        return {str(fault["loc"][0]) for fault in error.errors() if fault["type"] == "missing"}
    return set()


def _default(field: FieldInfo, needed: bool) -> str:
    if needed:
        return "must be given"
    if field.is_required():
        return "[filled in](#what-is-filled-in)"
    default = field.get_default(call_default_factory=True)
    return "its own" if isinstance(default, Config) else _value(default)


def _filled_in() -> str:
    """What `settings` and the method fill in."""
    columns: dict[str, Mapping[str, Any]] = {'"small"': SMALL}
    columns |= {f'"paper", {name}': PAPERS[name] for name in METHODS}
    flat = {
        title: {key: value for key, value in said.items() if key not in ("optim", "options")}
        | {f"optim.{key}": value for key, value in said["optim"].items()}
        for title, said in columns.items()
    }
    flat['"small"']["recipe"] = "the method's own"
    for name in METHODS:
        for title, options in (
            ('"small"', SMALL_OPTIONS.get(name, {})),
            (f'"paper", {name}', PAPERS[name].get("options", {})),
        ):
            flat[title] |= {f"{name}.{key}": value for key, value in options.items()}
        flat[f'"paper", {name}']["recipe"] = find(name).recipe
    keys = dict.fromkeys(key for said in flat.values() for key in said)
    rows = [
        f"| `{key}` | " + " | ".join(_shown(said.get(key)) for said in flat.values()) + " |"
        for key in keys
    ]
    head = "| `settings` | " + " | ".join(flat) + " |\n|" + "---|" * (len(flat) + 1)
    return "\n".join(["## What is filled in\n", head, *rows, ""])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{number} {unit}" for unit, number in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _verb(function: Callable[..., Any]) -> str:
    usage, rows = [function.__name__], []
    for name, parameter in get_params_from_function(function).items():
        said = parameter.default
        word = said.metavar or ("" if parameter.annotation is bool else name.upper())
        if isinstance(said, OptionInfo):
            flag = next(iter(said.param_decls or ()), f"--{name.replace('_', '-')}")
            word = f"{flag} {word}".strip()
        elif get_origin(parameter.annotation) is list:
            word += "..."
        needed = said.default is ...
        usage += [word] if needed else []
        default = "must be given" if needed else _value(said.default)
        rows.append(f"| `{word}` | {type_of(parameter.annotation)} | {default} | {said.help} |")
    table = ["| | type | default | |\n|---|---|---|---|", *rows, ""] if rows else []
    about = inspect.cleandoc(function.__doc__ or "")
    head = f"### {function.__name__}\n\n{about}\n\n```\nhounsfield {' '.join(usage)}\n```\n"
    return "\n".join([head, *table])


def _value(value: Any) -> str:
    return "none" if value in (None, {}) else f"`{json.dumps(value, default=str)}`"


if __name__ == "__main__":
    for path, text in pages().items():
        write_text(DOCS / path, text)
