"""Verbs about studies. Their code is imported only when they are asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hounsfield.cli.options import Jobs
from hounsfield.errors import MachineError, TrainingError
from hounsfield.wording import plural

if TYPE_CHECKING:
    from hounsfield.study.run import Outcome


def study(
    config: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="What to compare, on what.")],
    out: Annotated[Path, typer.Option(help="The study's folder; the same command goes on in it.")],
    jobs: Jobs = 1,
    pretrained: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="Another study: copy its pre-trainings that are the same; may be repeated.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Run nothing; say what it takes and what it could show."),
    ] = False,
    saliency: Annotated[
        bool, typer.Option("--saliency", help="Also map what the surest mistakes looked at.")
    ] = False,
) -> None:
    """Pre-train, fine-tune, judge and show all that a study names; what is finished stays."""
    from hounsfield.report.study_folder import read
    from hounsfield.report.table import show
    from hounsfield.study.config import load_study
    from hounsfield.study.plan import plan
    from hounsfield.study.run import run

    planned = plan(load_study(config))
    if dry_run:
        from hounsfield.study.estimate import estimate

        for line in estimate(planned, out, pretrained=pretrained or ()).lines():
            typer.echo(line)
        return
    outcome = run(planned, out, jobs=jobs, pretrained=pretrained or ())
    if saliency:
        from hounsfield.study.saliency import write_saliency

        write_saliency(planned, out)
    show(read(out))
    _tell_failures(outcome)
    typer.echo(f"Study: {out} (page: hounsfield report {out})")


def power(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study: the pilot.")],
    effect: Annotated[
        float | None, typer.Option(help="Also say how many patients show this difference of AUC.")
    ] = None,
    patients: Annotated[
        list[int] | None, typer.Option(help="Test patients to plan for; may be repeated.")
    ] = None,
    repeats: Annotated[
        list[int] | None, typer.Option(help="Repeats to plan for; may be repeated.")
    ] = None,
) -> None:
    """Plan the next study from this one: effects to be seen, patients and repeats needed."""
    from hounsfield.judge.planning import REPEATS, lines, plans

    for plan in plans(folder, effect=effect, patients=patients or (), repeats=repeats or REPEATS):
        typer.echo("\n".join(lines(plan, effect=effect)))


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `study` wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the report goes (default DIR/report).")
    ] = None,
) -> None:
    """Write the page, figures and tables of a study; say where the page is, and its answer."""
    from hounsfield.report.make import report as make

    made = make(folder, out)
    for sentence in made.answer:
        typer.echo(sentence)
    typer.echo(f"Report: {made.page}")


def demo(
    out: Annotated[Path, typer.Option(help="A folder; the same command goes on in it.")] = Path(
        "hounsfield-demo"
    ),
    jobs: Jobs = 2,
) -> None:
    """Go the whole way on a phantom archive: DICOM, store, pre-trainings, study, report."""
    from hounsfield.demo import demo as go
    from hounsfield.report.study_folder import read
    from hounsfield.report.table import show

    done = go(out, jobs=jobs, say=typer.echo)
    show(read(done.outcome.folder))
    _tell_failures(done.outcome)
    typer.echo(f"Report: {done.page}")


def _tell_failures(outcome: "Outcome") -> None:
    for place, reason in outcome.failed:
        typer.echo(f"failed: {place}: {reason}", err=True)
    if outcome.failed:
        kind = MachineError if outcome.machine_failed else TrainingError
        raise kind(
            f"{len(outcome.failed)} of {plural(outcome.cells, 'cell')} failed; the others are kept "
            "and judged. Mend the cause and run the same command again."
        )
