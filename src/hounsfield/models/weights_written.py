"""Weights as a safetensors file whose bytes are a function of what is in it."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from hounsfield.files import write_whole

LENGTH = 8  # bytes that say how long the header is; the header ends on a multiple of it


def write_weights(
    path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None
) -> None:
    """Write named tensors of any device, with notes in the header, whole.

    safetensors puts the notes in an order that changes from call to call, and with it the file's
    hash, by which weights are known; here names are in the alphabet's order.

    Raises:
        DiskError: The disk is full or not writable; `path` is as it was before.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = save(plain, metadata=dict(notes) if notes else None)
    end = LENGTH + int.from_bytes(content[:LENGTH], "little")
    header = json.dumps(json.loads(content[LENGTH:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % LENGTH)
    write_whole(path, len(header).to_bytes(LENGTH, "little") + header + content[end:])
