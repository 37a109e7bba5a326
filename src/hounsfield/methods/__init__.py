"""The methods, a paper a file, found by name; a method from outside is found the same way.

`byol`, `moco_v2`, `spark`, `swav`; `base` is what each method is, `contract` what is checked.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from hounsfield.errors import ConfigError, one_of

if TYPE_CHECKING:
    from hounsfield.methods.base import Method

GROUP = "hounsfield.methods"  # the entry point group of methods from other packages

METHODS: Mapping[str, str] = {
    "byol": "hounsfield.methods.byol:BYOL",
    "moco_v2": "hounsfield.methods.moco_v2:MoCoV2",
    "spark": "hounsfield.methods.spark:SparK",
    "swav": "hounsfield.methods.swav:SwAV",
}


def find(name: str) -> "type[Method]":
    """The method's class.

    Args:
        name: One of `METHODS`, an entry point's name, or `package.module:Class`.

    Raises:
        ConfigError: Nothing has this name, it cannot be imported, or it is not a `Method`.
    """
    outside = {point.name: point.value for point in entry_points(group=GROUP)}
    known = {**outside, **METHODS}
    if ":" not in name and name not in known:
        what = one_of("method", name, known)
        raise ConfigError(f"{what} A class of your own: package.module:Class.")
    return _import(known.get(name, name))


def _import(path: str) -> "type[Method]":
    from hounsfield.methods.base import Method

    module, _, attribute = path.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"method {path!r} cannot be imported: {error}. "
            "Install its package, or put its folder on PYTHONPATH."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ConfigError(
            f"method {path!r} is not a class derived from hounsfield.methods.base.Method."
        )
    return found
