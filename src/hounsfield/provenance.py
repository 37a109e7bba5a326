"""Where a result comes from: version, commit, machine. No names of people or places."""

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from hounsfield import __version__


@cache
def commit() -> str:
    """The commit of the source tree that runs, "+" added where it was edited; "" outside one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        head = _git(root, "rev-parse", "HEAD")
        edited = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if edited else "")


def origin() -> dict[str, str]:
    """Version and commit, as every output names them."""
    return {"version": __version__, "commit": commit()}


def machine() -> dict[str, str | int]:
    """The kind of machine: system, processor, cores, Python."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "python": platform.python_version(),
    }


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - fixed words, no shell
        ["git", "-C", str(root), *arguments],  # noqa: S607 - the user's own git
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()
