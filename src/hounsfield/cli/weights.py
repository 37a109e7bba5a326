"""Verbs about weights and classifiers. Their code is imported only when they are asked for."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from hounsfield.cli.options import KeepIds, Key, PatientPattern, Sources, Workers


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


def finetune(
    weights: Annotated[str, typer.Option(help="scratch, imagenet, a run, a file or a hub id.")],
    store: Annotated[Path, typer.Option(help="A store with labels.")],
    task: Annotated[str, typer.Option(help="The label column.")],
    out: Annotated[
        Path, typer.Option(help="The classifier's folder; the same command goes on in it.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another setting, such as level=patient; may be repeated.",
        ),
    ] = None,
) -> None:
    """Train one classifier to keep, for `predict`: calibrated on validation patients."""
    import json

    from hounsfield.classify.finetune import FinetuneConfig
    from hounsfield.classify.finetune import finetune as train
    from hounsfield.config import load

    named = {"weights": weights, "store": str(store), "task": task}
    given = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in named.items()]
    done = train(load(FinetuneConfig, overrides=[*given, *(settings or ())]), out)
    for line in done.lines():
        typer.echo(line)


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `finetune` made.")],
    sources: Sources,
    out: Annotated[Path, typer.Option(help="A new CSV file.")],
    heatmaps: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A new folder: a picture of every slice.")
    ] = None,
    workers: Workers = 1,
    key: Key = None,
    keep_ids: KeepIds = False,
    patient_pattern: PatientPattern = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU where there is one.")
    ] = "auto",
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
        device=device,
    )
    for line in tally.lines(out):
        typer.echo(line)
