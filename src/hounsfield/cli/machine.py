"""Verbs about this machine. Their code is imported only when they are asked for."""

from pathlib import Path

import typer


def doctor() -> None:
    """Say what this machine has and what it lacks, with the command that mends it."""
    from hounsfield.doctor import examine, lines
    from hounsfield.errors import MachineError

    findings = examine(Path.cwd())
    for line in lines(findings):
        typer.echo(line)
    missing = [one.name for one in findings if one.needed]
    if missing:
        raise MachineError(f"{', '.join(missing)}: missing. The commands above mend it.")
