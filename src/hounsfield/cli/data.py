"""Verbs about scans and stores. Their code is imported only when they are asked for."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from hounsfield.cli.options import KeepIds, Key, PatientPattern, Sources, Workers


def phantom(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    patients: Annotated[int, typer.Option(help="How many patients, 26 slices each.")] = 40,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal files.")] = 0,
) -> None:
    """Write synthetic CT as DICOM series, with labels for two tasks."""
    from hounsfield.data.phantom import phantom as make
    from hounsfield.progress import bar
    from hounsfield.wording import plural

    with bar("patients", total=patients) as progress:
        labels = make(out, patients=patients, seed=seed, advance=progress.advance)
    typer.echo(f"Phantom: {out} ({plural(patients, 'patient')}), labels in {labels}")


def ingest(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="The store to make: a new folder.")],
    labels: Annotated[Path | None, typer.Option(help="A CSV or Parquet table of labels.")] = None,
    size: Annotated[int, typer.Option(help="Height and width of the stored slices in px.")] = 128,
    workers: Workers = 2,
    spacing_mm: Annotated[
        float | None,
        typer.Option(help="Pixel size of all slices (default: each is scaled to --size)."),
    ] = None,
    crop: Annotated[
        Literal["body"] | None, typer.Option(help="Cut every volume to its body first.")
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Add to a store what it lacks.")] = False,
    key: Key = None,
    keep_ids: KeepIds = False,
    patient_pattern: PatientPattern = None,
    class_folders: Annotated[
        str | None,
        typer.Option(help="A name: the first folder of a file's path is its label of that name."),
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


def info(
    path: Annotated[Path, typer.Argument(metavar="STORE", help="A store.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
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
        typer.echo(f"Picture: {montage}", err=as_json)


def thin(
    path: Annotated[Path, typer.Argument(metavar="STORE", help="A store.")],
    out: Annotated[Path, typer.Option(help="The store to make: a new folder.")],
    distance: Annotated[
        int, typer.Option(help="Slices whose hashes differ in so many bits or fewer are alike.")
    ] = 6,
) -> None:
    """Drop near-duplicate slices within every volume of a store."""
    from hounsfield.data.store import Store
    from hounsfield.data.thin import lines
    from hounsfield.data.thin import thin as drop
    from hounsfield.progress import bar

    store = Store.open(path)
    with bar("slices", total=2 * len(store)) as progress:
        thinned = drop(store, out, distance=distance, advance=progress.advance)
    for line in lines(thinned, distance):
        typer.echo(line)
    typer.echo(f"Store: {out}, curve in {out / 'thinning.svg'}")


def leaks(
    paths: Annotated[list[Path], typer.Argument(metavar="STORE", help="One or more stores.")],
) -> None:
    """Find what test and validation slices share with all that a network may have seen."""
    from hounsfield.data.leaks import leaks as find
    from hounsfield.data.leaks import looks, sides_of
    from hounsfield.data.store import Store
    from hounsfield.progress import bar

    pairs, unsplit = sides_of([Store.open(path) for path in paths])
    with bar("slices", total=sum(looks(seen, [judged]) for judged, seen in pairs)) as progress:
        found = [
            leak
            for judged, seen in pairs
            for leak in find(seen, [judged], advance=progress.advance)
        ]
    if not pairs:
        typer.echo(f"No test or validation slices in {', '.join(unsplit)}: nothing to leak into.")
    for leak in found:
        typer.echo(f"{leak.kind}: {leak}")
    if pairs and not found:
        typer.echo("No leak: no shared patient, no equal slice, no near-duplicate slice.")
    if any(leak.kind != "near-duplicate" for leak in found):
        raise typer.Exit(2)
