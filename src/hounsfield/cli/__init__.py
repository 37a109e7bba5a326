"""The command line: the verbs in the order in which a study needs them.

About `data`, `training`, `studies`, `weights` and this `machine`; `options` several take alike.
"""

import signal
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

import typer

from hounsfield.cli import data, machine, studies, training, weights
from hounsfield.errors import HounsfieldError, InputError, InterruptedRun

VERBS: Final[Mapping[str, tuple[Callable[..., Any], ...]]] = MappingProxyType(
    {
        "Scans and stores": (data.phantom, data.ingest, data.info, data.thin, data.leaks),
        "Pre-training": (training.pretrain, training.reconstruct, training.contract),
        "Studies": (studies.study, studies.report, studies.power, studies.demo),
        "Weights": (weights.weights, weights.export, weights.finetune, weights.predict),
        "This machine": (machine.doctor,),
    }
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Few labels, many scans: pre-train on CT several ways, and compare fairly.",
)
for _panel, _verbs in VERBS.items():
    for _verb in _verbs:
        app.command(rich_help_panel=_panel)(_verb)


def main() -> None:
    """Run the command line; every foreseen error is one line and an exit code of its own."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to stop: as Ctrl-C
    try:
        app()
    except HounsfieldError as error:
        _end(str(error), error.exit_code)
    except PermissionError as error:
        _end(
            f"{error.filename} may not be opened. Ask for the right, or choose another.",
            InputError.exit_code,
        )
    except SystemExit as end:  # typer's own way to say that Ctrl-C was pressed
        if end.code != InterruptedRun.exit_code:
            raise
        _end(
            "interrupted. Nothing is half-written: run the same command again.",
            InterruptedRun.exit_code,
        )


def _end(message: str, code: int) -> None:
    word = "" if code == InterruptedRun.exit_code else "error: "
    sys.stderr.write(f"{word}{message}\n")
    sys.stderr.flush()
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        from hounsfield import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    del version  # the callback has dealt with it
