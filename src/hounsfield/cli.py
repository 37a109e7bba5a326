"""The verbs. A verb's code is imported only when it is asked for, so `--help` is instant."""

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take and could show.")
    ] = False,
    saliency: Annotated[
        bool, typer.Option("--saliency", help="Also map what the surest mistakes looked at.")
    ] = False,
) -> None:
    """Pre-train, fine-tune and judge all that a study names; what is finished stays."""
    from hounsfield.errors import TrainingError
    from hounsfield.report.study_folder import read
    from hounsfield.report.table import show
    from hounsfield.study.config import load_study
    from hounsfield.study.plan import plan
    from hounsfield.study.run import run

    planned = plan(load_study(config))
    if dry_run:
        from hounsfield.study.estimate import estimate

        for line in estimate(planned, out).lines():
            typer.echo(line)
        return
    outcome = run(planned, out, jobs=jobs)
    if saliency:
        from hounsfield.study.saliency import write_saliency

        write_saliency(planned, out)
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
def power(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study: the pilot.")],
    effect: Annotated[
        float | None, typer.Option(help="A difference of AUC: how many patients show it?")
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


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    patients: Annotated[int, typer.Option(help="How many patients, 26 slices each.")] = 40,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal files.")] = 0,
) -> None:
    """Write synthetic CT as DICOM series, with labels for two tasks."""
    from hounsfield.data.phantom import phantom as make
    from hounsfield.progress import bar

    with bar("patients", total=patients) as progress:
        labels = make(out, patients=patients, seed=seed, advance=progress.advance)
    typer.echo(f"Phantom: {out} ({patients} patients), labels in {labels}")


@app.command()
def ingest(
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Folders, files and zip archives.")
    ],
    out: Annotated[Path, typer.Option(help="The store.")],
    labels: Annotated[Path | None, typer.Option(help="A CSV or Parquet table of labels.")] = None,
    size: Annotated[int, typer.Option(help="Height and width of the stored slices in px.")] = 128,
    workers: Annotated[int, typer.Option(help="Reading processes.")] = 2,
    spacing_mm: Annotated[
        float | None, typer.Option(help="A fixed pixel size (default: scale every slice).")
    ] = None,
    crop: Annotated[
        Literal["body"] | None, typer.Option(help="Cut every volume to its body first.")
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Add what the store lacks.")] = False,
    key: Annotated[
        Path | None, typer.Option(help="The key of the identities (default: one a user).")
    ] = None,
    keep_ids: Annotated[bool, typer.Option("--keep-ids", help="Keep identities.")] = False,
    patient_pattern: Annotated[
        str | None, typer.Option(help="A regular expression: its group is the patient.")
    ] = None,
    class_folders: Annotated[
        str | None, typer.Option(help="A label column: the first folder of every path.")
    ] = None,
) -> None:
    """Read scans into a store; every file that stays out is listed with its reason."""
    from hounsfield.data.info import flow_lines
    from hounsfield.data.ingest import ingest as read

    flow = read(
        sources,
        out,
        labels=labels,
        size=size,
        workers=workers,
        spacing_mm=spacing_mm,
        crop=crop,
        append=append,
        key=key,
        keep_ids=keep_ids,
        patient_pattern=patient_pattern,
        class_folders=class_folders,
    )
    for line in flow_lines(flow):
        typer.echo(line)
    typer.echo(f"Store: {out}")


@app.command()
def info(
    path: Annotated[Path, typer.Argument(metavar="STORE", help="A store.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    montage: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture of some slices.")
    ] = None,
) -> None:
    """Say what a store holds: files to slices, patients, spacings, HU, labels and splits."""
    import json

    from hounsfield.data.info import describe, lines, write_montage
    from hounsfield.data.store import Store

    store = Store.open(path)
    described = describe(store)
    typer.echo(json.dumps(described, indent=2) if as_json else "\n".join(lines(described)))
    if montage is not None:
        write_montage(store, montage)


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run of `pretrain` or `finetune`.")],
    out: Annotated[Path, typer.Option(help="A new folder for weights, manifest, probe and card.")],
    kind: Annotated[
        str, typer.Option("--format", help="safetensors (timm's names), torchvision or onnx.")
    ] = "safetensors",
) -> None:
    """Write weights that plain timm, torchvision or onnxruntime loads, proven by a probe."""
    from hounsfield.export.make import export as write

    typer.echo(f"Export: {write(run, out, kind=kind)}")


@app.command()
def finetune(
    weights: Annotated[str, typer.Option(help="scratch, imagenet, a run, a file or a hub id.")],
    store: Annotated[Path, typer.Option(help="A store with labels.")],
    task: Annotated[str, typer.Option(help="The label column.")],
    out: Annotated[Path, typer.Option(help="A new folder for the classifier.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another setting, such as level=patient."),
    ] = None,
) -> None:
    """Train one classifier for keeps, calibrated on validation patients."""
    import json

    from hounsfield.classify.finetune import FinetuneConfig
    from hounsfield.classify.finetune import finetune as train
    from hounsfield.config import load

    named = {"weights": weights, "store": str(store), "task": task}
    given = [f"{name}={json.dumps(value)}" for name, value in named.items()]
    done = train(load(FinetuneConfig, overrides=[*given, *(settings or ())]), out)
    for line in done.lines():
        typer.echo(line)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `finetune` made.")],
    sources: Annotated[
        list[Path], typer.Argument(metavar="SOURCE...", help="Folders, files and zip archives.")
    ],
    out: Annotated[Path, typer.Option(help="A new CSV file.")],
    heatmaps: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A new folder: a picture of every slice.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Reading processes.")] = 1,
    key: Annotated[
        Path | None, typer.Option(help="The key of the identities (default: one a user).")
    ] = None,
    keep_ids: Annotated[bool, typer.Option("--keep-ids", help="Keep identities.")] = False,
    patient_pattern: Annotated[
        str | None, typer.Option(help="A regular expression: its group is the patient.")
    ] = None,
) -> None:
    """Score scans with a classifier: calibrated probabilities by slice and by patient."""
    from hounsfield.classify.predict import predict as score

    tally = score(
        run,
        sources,
        out,
        heatmaps=heatmaps,
        workers=workers,
        key=key,
        keep_ids=keep_ids,
        patient_pattern=patient_pattern,
    )
    for line in tally.lines(out):
        typer.echo(line)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="A folder; the same command goes on in it.")] = Path(
        "hounsfield-demo"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="Cells side by side.")] = 2,
) -> None:
    """Go the whole way on a phantom archive: DICOM, store, pre-trainings, study, report."""
    from hounsfield.demo import demo as go
    from hounsfield.report.study_folder import read
    from hounsfield.report.table import show

    done = go(out, jobs=jobs, say=typer.echo)
    show(read(done.study))
    typer.echo(f"Report: {done.page}")


@app.command()
def thin(
    path: Annotated[Path, typer.Argument(metavar="STORE", help="A store.")],
    out: Annotated[Path, typer.Option(help="The thinner store.")],
    distance: Annotated[
        int, typer.Option(help="Slices whose hashes differ in so many bits or fewer are alike.")
    ] = 6,
) -> None:
    """Drop near-duplicate slices within every volume of a store."""
    from hounsfield.data.store import Store
    from hounsfield.data.thin import lines
    from hounsfield.data.thin import thin as drop

    for line in lines(drop(Store.open(path), out, distance=distance), distance):
        typer.echo(line)
    typer.echo(f"Store: {out}, curve in {out / 'thinning.svg'}")


@app.command()
def leaks(
    paths: Annotated[list[Path], typer.Argument(metavar="STORE...", help="One or more stores.")],
) -> None:
    """Find what test and validation slices share with all that a network may have seen."""
    from hounsfield.data.leaks import leaks as find
    from hounsfield.data.leaks import sides_of
    from hounsfield.data.store import Store

    pairs, unsplit = sides_of([Store.open(path) for path in paths])
    found = [leak for judged, seen in pairs for leak in find(seen, [judged])]
    if not pairs:
        typer.echo(f"No test or validation slices in {', '.join(unsplit)}: nothing to leak into.")
    for leak in found:
        typer.echo(f"{leak.kind}: {leak}")
    if pairs and not found:
        typer.echo("No leak: no shared patient, no equal slice, no near-duplicate slice.")
    if any(leak.kind != "near-duplicate" for leak in found):
        raise typer.Exit(2)


@app.command()
def reconstruct(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run of SparK.")],
    path: Annotated[Path, typer.Argument(metavar="STORE", help="Where the slices come from.")],
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture.")],
    slices: Annotated[int, typer.Option(min=1, help="How many, a row each.")] = 6,
    seed: Annotated[int, typer.Option(help="Decides slices and masks.")] = 0,
) -> None:
    """Draw slices as SparK sees and completes them: input, what is visible, reconstruction."""
    from hounsfield.data.store import Store
    from hounsfield.train.reconstruct import reconstruct as draw

    draw(run, Store.open(path), out, slices=slices, seed=seed)
    typer.echo(f"Picture: {out}")


@app.command()
def contract(
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="A method's name, or package.module:Class.")
    ],
) -> None:
    """Check, in seconds, that a method keeps what the training and the study rely on."""
    from hounsfield.methods import find
    from hounsfield.methods.contract import PROMISES, check

    check(find(method))
    typer.echo(f"{method} keeps all {len(PROMISES)} promises.")


@app.command()
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


if __name__ == "__main__":
    main()
