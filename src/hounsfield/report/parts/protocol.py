"""How the arms were trained: protocols and budget in words, and what every arm really spent."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from hounsfield.report import words
from hounsfield.report.html import Grid, Section, grid, render
from hounsfield.report.study_folder import Cell, Study
from hounsfield.report.style import Style

KINDS = {
    "scratch": "random weights",
    "imagenet": "weights trained on ImageNet",
    "control": "a control without a network",
    "pretrained": "pre-trained by this study",
    "weights": "weights from a file",
    "predictions": "scores from a file",
}

KEPT_OUT: Final = {
    "val_and_test": "validation and test patients",
    "test": "test patients",
    "labelled": "all labelled patients",
}


def section(study: Study, style: Style) -> Section:
    """Sentences on the plan; a table of what was spent."""
    del style  # no figure
    body = render("protocol", sentences=[*sentences(study)], table=_spent(study))
    return Section("protocol", "Protocol and budget", body)


def sentences(study: Study) -> Iterator[str]:
    """How the study was done, from its own configuration."""
    config = study.facts.get("config")
    config = config if isinstance(config, Mapping) else {}
    arms = study.facts.get("arms")
    kinds = arms if isinstance(arms, Mapping) else {}
    told = [f"{words.arm_name(arm)}{_kind(kinds.get(arm))}" for arm in study.arms]
    yield f"{words.plural(len(study.arms), 'arm')} were compared: {words.listed(told)}."
    if config.get("backbone"):
        size = f" at {config['image_size']} px" if config.get("image_size") else ""
        yield f"Every network is a {config['backbone']}{size}."
    shares = words.listed([words.percent(fraction) for fraction in study.fractions])
    how = (
        f"{study.folds}-fold cross-validation over all patients"
        if study.folds > 1
        else "one fixed split by patient"
    )
    yield (
        f"Each was trained on {shares} of the training patients, "
        f"{words.plural(study.repeats, 'time')} each on its own nested, stratified draw that all "
        f"arms share, and judged on {how}."
    )
    yield from _fair(study, config)
    yield from _taken(study)
    if "paper" in study.protocols:
        yield (
            "The protocol paper repeats the published study's fine-tuning: fixed epochs, so that "
            "few labels mean few steps."
        )
    if "linear" in study.protocols or "knn" in study.protocols:
        yield "The protocols linear and knn judge frozen features."
    if config.get("keep_out") and study.facts.get("pretrainings"):
        whom = KEPT_OUT[config["keep_out"]]
        yield f"Pre-training did not see the images of the {whom}."


def _fair(study: Study, config: Mapping[str, Any]) -> Iterator[str]:
    budget = config.get("budget")
    if "fair" not in study.protocols or not isinstance(budget, Mapping):
        return
    rates = budget.get("lr")
    grid_of = (
        f"{len(rates)} learning rates were tried ({', '.join(f'{rate:g}' for rate in rates)}) and "
        "the best on the cell's own validation patients was kept"
        if isinstance(rates, Sequence) and not isinstance(rates, str)
        else f"one learning rate was used ({rates})"
    )
    yield (
        f"Under the protocol fair every network had the same budget at every fraction: "
        f"{budget.get('steps', '?')} steps of {budget.get('batch', '?')} class-balanced images; "
        f"{grid_of}. Test images chose nothing."
    )


def _taken(study: Study) -> Iterator[str]:
    """How many networks are not those of the last step, and what "unfinished" says of them."""
    steps = [(cell.facts.get("chosen_step"), cell.facts.get("steps")) for cell in study.cells]
    known = [(at, of) for at, of in steps if isinstance(at, int) and isinstance(of, int)]
    if known:
        yield (
            f"Validation patients chose the network of an earlier step than the last in "
            f"{sum(at < of for at, of in known):,} of {words.plural(len(known), 'training')}. "
            "Whether a training is finished is read off its last steps all the same: the question "
            "is whether its steps were enough."
        )


def _kind(entry: Any) -> str:
    kind = KINDS.get(str(entry.get("kind"))) if isinstance(entry, Mapping) else None
    return f" ({kind})" if kind else ""


def _spent(study: Study) -> Grid:
    heads = ["arm", "protocol", "cells", "done", "unfinished", "failed", "steps", "trials",
             "chosen rates", "wall time"]  # fmt: skip
    rows = [
        _row(arm, protocol, cells)
        for arm in study.arms
        for protocol in study.protocols
        if (cells := [c for c in study.cells if (c.arm, c.protocol) == (arm, protocol)])
    ]
    return grid("What every arm spent on fine-tuning", heads, rows)


def _row(arm: str, protocol: str, cells: Sequence[Cell]) -> list[str]:
    def ended(status: str) -> str:
        return str(sum(cell.status == status for cell in cells))

    rates = sorted({cell.facts["lr"] for cell in cells if isinstance(cell.facts.get("lr"), float)})
    wall = [cell.facts.get("wall_s") for cell in cells]
    return [
        words.arm_name(arm),
        protocol,
        str(len(cells)),
        ended("done"),
        ended("unfinished"),
        ended("failed"),
        _all(cells, "steps"),
        _all(cells, "trials"),
        ", ".join(f"{rate:g}" for rate in rates) or words.DASH,
        words.duration(sum(one for one in wall if isinstance(one, int | float))),
    ]


def _all(cells: Sequence[Cell], fact: str) -> str:
    return words.span([cell.facts[fact] for cell in cells if isinstance(cell.facts.get(fact), int)])
