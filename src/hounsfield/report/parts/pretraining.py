"""The pre-trainings: did they learn, did they stay healthy, what did they cost."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from hounsfield.report import drawing, words
from hounsfield.report.drawing import Figure
from hounsfield.report.html import Section, grid, render
from hounsfield.report.pictures import picture
from hounsfield.report.study_folder import Run, Study, mapping
from hounsfield.report.style import Style

AXIS_LETTERS = 28  # of a line beside an axis
MOST_POINTS = 300  # of a curve; a longer log is thinned
NOT_HEALTH = ("step", "epoch", "loss", "lr", "time", "images_per_s", "wait_s", "progress")

MEASURES = {
    "grad_norm": "gradient norm",
    "feature_std": "spread of the features",
    "effective_rank": "effective rank of the features",
    "content": "share of the hidden patches that is not air",
    "target_similarity": "likeness to the slow network's view",
    "positive_similarity": "likeness of two views of a slice",
    "positive_first": "share found among all others",
    "prototype_entropy": "entropy of the prototypes",
    "knn_auc": "kNN probe, AUC",
    "linear_auc": "linear probe, AUC",
}
HEADS = ("run", "backbone", "state", "device", "images/s", "wall time", "steps", "first loss",
         "last loss")  # fmt: skip
CARD_HEADS = ("arm", "file", "published by", "licence", "trained on", "tensors loaded", "SHA-256",
              "notes")  # fmt: skip


def section(study: Study, style: Style) -> Section:
    """A row a run, its loss, whatever else it logged, and its reconstructions."""
    figures = [*_losses(study, style), *_health(study, style)]
    pictures = [
        shown
        for entry in map(mapping, study.pictures.get("reconstructions") or ())
        if (shown := picture(study, entry, title=_drawer(entry), text=_drawn(entry))) is not None
    ]
    body = render(
        "pretraining",
        table=grid("Pre-training runs", HEADS, [_row(run) for run in study.runs]),
        cards=grid("Weights from outside this study", CARD_HEADS, [*_cards(study)]),
        figures=figures,
        pictures=pictures,
    )
    return Section("pretraining", "Pre-training", body, figures)


def _row(run: Run) -> list[str]:
    losses = [line["loss"] for line in run.metrics if _is_number(line.get("loss"))]
    wall, rate = run.summary.get("wall_s"), run.summary.get("images_per_s")
    return [
        f"{words.arm_name(run.name)} ({run.folder.name[:8]})",
        str(run.config.get("backbone", words.DASH)),
        "ended" if run.summary.get("done") else "not ended",
        str(run.summary.get("device") or words.DASH),
        f"{rate:,.0f}" if _is_number(rate) else words.DASH,
        words.duration(wall if _is_number(wall) else None),
        _count(run.summary.get("steps")),
        words.number(losses[0]) if losses else words.DASH,
        words.number(losses[-1]) if losses else words.DASH,
    ]


def _drawer(entry: Mapping[str, Any]) -> str:
    return f"{words.arm_name(str(entry.get('arm', '')))} ({str(entry.get('run', ''))[:8]})"


def _drawn(entry: Mapping[str, Any]) -> str:
    return f"patient {entry.get('patient')}, slice {entry.get('slice')}"


def _cards(study: Study) -> Iterator[list[str]]:
    """A row for each arm whose weights, or the start of whose pre-training, were there before."""
    arms = mapping(study.facts.get("arms"))
    for arm in study.arms:
        card = mapping(mapping(arms.get(arm)).get("card"))
        if card:
            start = " (start)" if mapping(arms[arm]).get("kind") == "pretrained" else ""
            loaded = f"{card.get('matched', '?')}, all of the backbone's"
            yield [
                words.arm_name(arm) + start,
                *(str(card.get(key) or "not told") for key in ("file", "origin", "licence",
                                                               "corpus")),
                f"{loaded}; {card['unused']} not used" if card.get("unused") else loaded,
                str(card.get("sha256") or "not told"),
                "; ".join(map(str, card.get("notes") or ())),
            ]  # fmt: skip


def _losses(study: Study, style: Style) -> Iterator[Figure]:
    """A figure a method, a line a run: losses of different methods are not comparable."""
    for method in dict.fromkeys(run.name for run in study.runs):
        runs = [run for run in study.runs if run.name == method]
        series = [row for run in runs for row in _series(run, "loss")]
        if series:
            yield Figure(
                f"pretraining-loss-{words.slug(method)}",
                f"{words.arm_name(method)}: loss",
                f"{words.plural(len(runs), 'run')}. Losses of different methods are not "
                "comparable.",
                _lines(series, title="loss", study=study, style=style),
            )


def _health(study: Study, style: Style) -> Iterator[Figure]:
    """A figure a measure, a line a run."""
    names = dict.fromkeys(
        name
        for run in study.runs
        for line in run.metrics
        for name in line
        if name not in NOT_HEALTH
    )
    for measure in names:
        series = [row for run in study.runs for row in _series(run, measure)]
        if series:
            title = _title(measure)
            yield Figure(
                f"pretraining-{words.slug(measure)}",
                words.sentence(title),
                "Over the steps, a line a pre-training.",
                _lines(series, title=title, study=study, style=style),
            )


def _title(measure: str) -> str:
    """`knn_auc/bleed` as `kNN probe, AUC, bleed`; unknown measures as they are, in words."""
    name, _, of = measure.partition("/")
    told = MEASURES.get(name, name.replace("_", " "))
    return f"{told}, {of}" if of else told


def _series(run: Run, measure: str) -> list[dict[str, Any]]:
    """A measure over the steps, thinned evenly; nothing where there are not two values."""
    found = [
        {
            "arm": words.arm_name(run.name),
            "run": run.folder.name[:8],
            "step": line["step"],
            "value": line[measure],
        }
        for line in run.metrics
        if _is_number(line.get(measure)) and _is_number(line.get("step"))
    ]
    if len(found) < 2:
        return []
    stride = -(-len(found) // MOST_POINTS)
    return [*found[:-1:stride], found[-1]]


def _lines(
    series: Sequence[dict[str, Any]], *, title: str, study: Study, style: Style
) -> dict[str, Any]:
    shown = {row["arm"] for row in series}
    arms = [arm for arm in study.arms if words.arm_name(arm) in shown]
    chart = (
        alt.Chart(drawing.ROWS)
        .mark_line(strokeWidth=1.5)
        .encode(
            x=alt.X("step:Q", title="step").axis(grid=False, tickCount=4),
            y=alt.Y("value:Q", title=textwrap.wrap(title, AXIS_LETTERS))
            .axis(tickCount=5)
            .scale(zero=False, domain=_domain([row["value"] for row in series])),
            detail="run:N",
            color=drawing.by_colour(arms, style, shape="stroke"),
            strokeDash=drawing.by_dash(arms, style, shape="stroke"),
            opacity=drawing.isolated(1),
            tooltip=["arm:N", "run:N", "step:Q", alt.Tooltip("value:Q", title=title, format=".4g")],
        )
    )
    ends = f"from {series[0]['value']:.4g} to {series[-1]['value']:.4g}"
    says = f"{words.sentence(title)} over the steps, {ends}."
    return drawing.finish(chart, style, says=says, data=series, height=200)


def _domain(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the greatest value; around the one that there is."""
    low, high = min(values), max(values)
    room = 0.0 if low < high else max(0.1 * abs(low), 0.01)
    return low - room, high + room


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else words.DASH
