"""Keyed hashes of identities: equal in all stores of one key, not to be guessed without it."""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from hounsfield.errors import InputError
from hounsfield.files import disk_errors

KEY_BYTES = 32


@dataclass(frozen=True)
class Keys:
    """Turns identities into what a store may hold; without a key it keeps them as they are."""

    key: bytes | None

    def __call__(self, what: str, identity: str) -> str:
        """The keyed hash of `identity`, 16 hexadecimal digits; `what` keeps kinds apart."""
        if self.key is None or not identity:
            return identity
        return hmac.digest(self.key, f"{what}:{identity}".encode(), "sha256").hex()[:16]


def default_key_file() -> Path:
    """Where the user's key lies unless another file is named."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "hounsfield" / "key"


def load_or_make(path: Path) -> Keys:
    """The keys of the file `path`, which is made, for its owner's eyes only, where there is none.

    Raises:
        InputError: The file is no key.
        DiskError: It cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return _load(path)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
    return _load(path)


def _load(path: Path) -> Keys:
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (ValueError, OSError):
        key = b""
    if len(key) < KEY_BYTES:
        raise InputError(
            f"{path} is no key: it must hold {KEY_BYTES} bytes in hexadecimal. Name another file; "
            "one that does not exist is made."
        )
    return Keys(hashlib.sha256(key).digest())
