"""Strict, frozen configuration from TOML: an unknown key is an error, and the error names keys."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from hounsfield.errors import ConfigError, one_of

MAX_BYTES = 1_000_000  # a config is written by hand; anything larger is a mistake or an attack
MAX_DOTS = 100  # in a line: tomllib takes memory by the square of a dotted key's length
_KIND = re.compile(r"float|int|str|bool|constrained-\w+|[\w-]+\[.*\]")  # pydantic's, in a union
FAULTS_SHOWN = 3  # in one message; who mends these sees the next ones


class Config(BaseModel):
    """Base of every configuration: frozen, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


C = TypeVar("C", bound=Config)


def load(kind: type[C], path: Path | None = None, *, overrides: Sequence[str] = ()) -> C:
    """The configuration of `kind` from a TOML file and `key=value` overrides.

    Args:
        kind: The configuration class to fill.
        path: A TOML file; without one, defaults and overrides alone.
        overrides: `key=value` with dots for tables (`optim.lr=0.1`); a value is read as TOML,
            and as plain text where it is not TOML.

    Raises:
        ConfigError: The file is missing, not TOML, too large, or a key or value is not allowed.
    """
    values = overridden(read_toml(path) if path is not None else {}, overrides)
    return parse(kind, values, where=str(path) if path is not None else "settings")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: The file is missing, too large or not TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigError(
                f"{path} is too long; a config has at most {MAX_BYTES} bytes. Is it the right file?"
            )
        for number, line in enumerate(content.split(b"\n"), 1):
            if line.count(b".") > MAX_DOTS:
                raise ConfigError(
                    f"{path} has {line.count(b'.')} dots in line {number}; at most {MAX_DOTS} are "
                    "read. Break the line."
                )
        return tomllib.loads(content.decode().replace("\r\n", "\n"))
    except FileNotFoundError:
        raise ConfigError(f"no config file at {path}. Give the path of a TOML file.") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be read as a config: {reason}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None


def placed(folder: Path, place: Any, *, must: bool = True) -> Any:
    """What a file in `folder` names as `place`: paths in a file count from where it lies.

    Args:
        folder: Absolute.
        place: A path; what is no text is left for the configuration to refuse.
        must: Whether it can only be a path. Where it may be a name as well, it is a path if
            something lies there.
    """
    if isinstance(place, str) and (must or (folder / place).exists()):
        return str(folder / place)
    return place


def overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`values` with `key=value` overrides put in, in place.

    Raises:
        ConfigError: An override is not of this form, or goes below a value.
    """
    for override in overrides:
        _set(values, override)
    return values


def parse(
    kind: type[C], values: Mapping[str, Any], *, where: str, not_offered: Sequence[str] = ()
) -> C:
    """The configuration of `kind` from plain values.

    Args:
        kind: The configuration class to fill.
        values: Key -> value.
        where: Their source, for errors.
        not_offered: Keys that an error does not offer: the caller decides them.

    Raises:
        ConfigError: A key or a value is not allowed.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = [_explain(kind, detail, not_offered) for detail in error.errors()]
        more = len(faults) - FAULTS_SHOWN
        rest = [f"and {more} more"] if more > 0 else []
        raise ConfigError(f"{where}: {'; '.join(faults[:FAULTS_SHOWN] + rest)}") from None


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override {override!r} is not of the form key=value.")
    *tables, last = key.strip().split(".")
    for table in tables:
        inner = values.setdefault(table, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"override {override!r}: {table!r} is a value, not a table.")
        values = inner
    try:
        values[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        values[last] = text


def _explain(kind: type[BaseModel], detail: ErrorDetails, not_offered: Sequence[str]) -> str:
    keys, models = _walk(kind, detail["loc"])
    place = ".".join(keys)
    if detail["type"] == "extra_forbidden":
        *tables, key = keys
        allowed = {name for model in models for name in model.model_fields} - set(not_offered)
        told = one_of("key", key, allowed)
        table = ".".join(tables)
        return told.replace(f"{key!r}.", f"{key!r} in {table}.", 1) if table else told
    if detail["type"] == "missing":
        return f"{place} is missing. Add it."
    message = detail["msg"].removeprefix("Value error, ")
    if isinstance(detail["input"], Mapping):  # a table whose values do not fit together
        return f"{place}: {message}" if place else message
    return f"{place} = {detail['input']!r} is not allowed: {message}"


def _walk(
    kind: type[BaseModel], location: Sequence[int | str]
) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys that lead to `location`, and the models of the last table on the way.

    Pydantic's names for the members of a union are no keys; a map's own keys change no model.
    """
    keys, models = [], [kind]
    for part in map(str, location):
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if fields:
            models = [inner for field in fields for inner in _models_in(field.annotation)]
        elif _KIND.fullmatch(part) or part in {model.__name__ for model in models}:
            continue
        keys.append(part)
    return keys, models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]
