"""Few labels, many scans: self-supervised pre-training on CT, compared fairly.

The public door; `docs/library.md` shows it at work. What is behind it is imported when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Encoder",
    "HounsfieldError",
    "Store",
    "__version__",
    "embed",
    "load_encoder",
    "open_store",
    "read_results",
]

if TYPE_CHECKING:
    from hounsfield.data.store import Store
    from hounsfield.encoder import Encoder, embed, load_encoder
    from hounsfield.errors import HounsfieldError
    from hounsfield.library import open_store, read_results

_ROOM_OF = {
    "Encoder": "encoder",
    "HounsfieldError": "errors",
    "Store": "data.store",
    "embed": "encoder",
    "load_encoder": "encoder",
    "open_store": "library",
    "read_results": "library",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'hounsfield' has no attribute {name!r}")
    return getattr(import_module(f"hounsfield.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
