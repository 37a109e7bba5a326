"""Checkpoints: written whole, named by their content, two kept."""

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hounsfield.files import disk_errors, write_whole

KEPT = 2
SHARES = 3  # of a checkpoint: weights and, of most optimisers, two moments
_NAME = re.compile(r"step-(\d{9})\.([0-9a-f]{64})\.pt")


def save(folder: Path, state: dict[str, Any], *, step: int) -> Path:
    """Write `state` whole, then forget all but the newest two; gives back the file.

    The digest of the content is part of the name: one rename makes both true at once.

    Raises:
        DiskError: The disk is full or not writable; the checkpoints before are as they were.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    path = folder / f"step-{step:09d}.{hashlib.sha256(content).hexdigest()}.pt"
    write_whole(path, content)
    with disk_errors(folder):
        for old in _files(folder)[KEPT:]:
            if old != path:
                old.unlink(missing_ok=True)
    return path


def room(model: nn.Module, *, shares: int = SHARES) -> int:
    """About how many bytes the checkpoints of `model` take: those kept, and one being written.

    Args:
        model: What is trained.
        shares: How many values a checkpoint holds for each of the model's.
    """
    state = model.state_dict().values()
    return (KEPT + 1) * shares * sum(one.numel() * one.element_size() for one in state)


def taken(folder: Path) -> int:
    """The bytes of the checkpoints that are there."""
    return sum(path.stat().st_size for path in _files(folder))


def newest(folder: Path, *, say: Callable[[str], None]) -> tuple[dict[str, Any], int] | None:
    """The state and the step of the newest sound checkpoint; None where there is none.

    Its tensors are on the CPU. Whoever loads them moves each to its place, which is not the GPU for
    all: an optimiser counts its steps on the CPU, and would wait for the GPU to read the count.

    Args:
        folder: Where `save` wrote.
        say: Called with one line for each damaged file that is passed over.
    """
    for path in _files(folder):
        found = _NAME.fullmatch(path.name)
        content = path.read_bytes()
        if found is None or hashlib.sha256(content).hexdigest() != found[2]:
            say(f"{path} is damaged; going back to the checkpoint before it.")
            continue
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state, int(found[1])
    return None


def latest(folder: Path) -> Path | None:
    """The newest checkpoint's file; None where there is none."""
    return next(iter(_files(folder)), None)


def _files(folder: Path) -> list[Path]:
    """The checkpoints, newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)
