"""The verbs. A verb's code is imported only when it is asked for, so `--help` is instant."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from hounsfield.errors import HounsfieldError, InterruptedRun

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Few labels, many scans: pre-train on CT several ways, and compare fairly.",
)


def main() -> None:
    """Run the command line; every foreseen error is one line and an exit code of its own."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to stop: as Ctrl-C
    try:
        app()
    except HounsfieldError as error:
        _end(str(error), error.exit_code)
    except SystemExit as end:  # typer's own way to say that Ctrl-C was pressed
        if end.code != InterruptedRun.exit_code:
            raise
        _end("interrupted. Run the same command again to go on.", InterruptedRun.exit_code)


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


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `study` wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the report goes (default DIR/report).")
    ] = None,
) -> None:
    """Print the result table and write the page, figures and tables of a study."""
    from hounsfield.report.make import report as make
    from hounsfield.report.study_folder import read
    from hounsfield.report.table import show

    page = make(folder, out)
    show(read(folder))
    typer.echo(f"Report: {page}")


@app.command()
def pretrain(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to train, on what.")],
    out: Annotated[Path, typer.Option(help="The run's folder; the same command goes on in it.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the config."),
    ] = None,
) -> None:
    """Pre-train a backbone on the slices of one or more stores."""
    from hounsfield.config import load
    from hounsfield.train.pretrain import PretrainConfig
    from hounsfield.train.pretrain import pretrain as train

    run = train(load(PretrainConfig, config, overrides=settings or ()), out)
    typer.echo(
        f"Run: {run.folder} ({run.steps} steps, loss {run.final_loss:.4g}, "
        f"{run.images_per_s:.0f} images/s)"
    )


@app.command()
def study(
    config: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="What to compare, on what.")],
    out: Annotated[Path, typer.Option(help="The study's folder; the same command goes on in it.")],
    jobs: Annotated[int, typer.Option(min=1, help="Cells side by side.")] = 1,
) -> None:
    """Pre-train, fine-tune and judge all that a study names; what is finished stays."""
    from hounsfield.errors import TrainingError
    from hounsfield.report.study_folder import read
    from hounsfield.report.table import show
    from hounsfield.study.config import load_study
    from hounsfield.study.plan import plan
    from hounsfield.study.run import run

    outcome = run(plan(load_study(config)), out, jobs=jobs)
    show(read(out))
    for place, reason in outcome.failed:
        typer.echo(f"failed: {place}: {reason}", err=True)
    if outcome.failed:
        raise TrainingError(
            f"{len(outcome.failed)} of {outcome.cells} cells failed; the others are kept and "
            "judged. Mend the cause and run the same command again."
        )
    typer.echo(f"Study: {out} (page: hounsfield report {out})")


@app.command()
def weights(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="A checkpoint, a run folder or a hub id.")
    ],
    backbone: Annotated[
        str | None, typer.Option(help="The backbone to fill (default: find out).")
    ] = None,
) -> None:
    """Say what a checkpoint is, where it comes from, and which backbone it fills."""
    from hounsfield.models.recognise import GUESSES, describe

    found = describe(source, [backbone] if backbone else GUESSES)
    for line in found.lines():
        typer.echo(line)
    if backbone and not found.filled:
        raise typer.Exit(2)


if __name__ == "__main__":
    main()
