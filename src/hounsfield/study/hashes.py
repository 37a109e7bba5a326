"""Names that are hashes of plain values."""

import hashlib
import json
from typing import Any


def hash_of(value: Any) -> str:
    """Sixteen hexadecimal digits that change with any part of a plain value."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
