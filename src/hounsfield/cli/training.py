"""Verbs about pre-training. Their code is imported only when they are asked for."""

from pathlib import Path
from typing import Annotated

import typer


def pretrain(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to train, on what.")],
    out: Annotated[Path, typer.Option(help="The run's folder; the same command goes on in it.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a value of the config; may be repeated."
        ),
    ] = None,
) -> None:
    """Pre-train a backbone on the slices of one or more stores."""
    from hounsfield.train.pretrain import load_pretrain
    from hounsfield.train.pretrain import pretrain as train
    from hounsfield.wording import plural

    run = train(load_pretrain(config, overrides=settings or ()), out)
    typer.echo(
        f"Run: {run.folder} ({plural(run.steps, 'step')}, loss {run.final_loss:.4g}, "
        f"{run.images_per_s:.0f} images/s)"
    )


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
