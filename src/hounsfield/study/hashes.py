"""Names that are hashes: of plain values, and of files."""

import hashlib
import json
from pathlib import Path
from typing import Any

from hounsfield.errors import ConfigError


def hash_of(value: Any) -> str:
    """Sixteen hexadecimal digits that change with any part of a plain value."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}. Give an existing file.") from None
