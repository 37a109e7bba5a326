"""Every number about one task under one protocol, with its interval or the reason for none."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from hounsfield.judge import labels_saved, limits, metrics
from hounsfield.judge.jackknife import Intervals, components, contrast, level
from hounsfield.judge.metrics import Bools, Floats, Measured, Truth
from hounsfield.judge.power import pilot, smallest_effect
from hounsfield.judge.questions import Question, folds_felt, questions, reach
from hounsfield.judge.scores import Board
from hounsfield.judge.view import Metric, at_level, measure, of_repeats, patient_df
from hounsfield.wording import percent, plural

Plain = Callable[[Floats, Truth], Floats]
WITH_INTERVALS: Mapping[str, Metric] = {
    "auc": metrics.auc,
    "balanced_accuracy": metrics.balanced_accuracy,
}
PLAIN: Mapping[str, Plain] = {
    "average_precision": metrics.average_precision,
    "f1": metrics.f1,
    "brier": metrics.brier,
    "ece": metrics.calibration_error,
}
AT_ONCE = 256  # questions whose delete-one values are in memory together
ALPHA = 0.05
PRIMARY_METRIC = "auc"  # the only one with p-values


def decimals(p: float) -> int:
    """How many decimals, three or more, keep a p-value on its own side of `ALPHA`."""
    return next(digits for digits in range(3, 18) if (round(p, digits) < ALPHA) == (p < ALPHA))


@dataclass(frozen=True)
class Answer:
    """A number: one row of `results.parquet`.

    Attributes:
        kind, task, protocol, level, metric, arm, baseline, fraction: What the number is of.
        estimate: Mean over repeats; None where a cell of every repeat is missing.
        low, high: 95 % interval, unadjusted; None where none holds.
        p: Two-sided p of no difference, of the primary metric only.
        p_holm: The same within its declared family.
        df: Degrees of freedom.
        smallest_effect: Difference that these patients and repeats show with 80 % probability;
            above `questions.reach` none whatever does.
        n_patients: Test patients.
        n_positive_patients: Test patients on the scarcest side, or of the rarest class.
        n_images: Test images; of a task of series, test series.
        repeats: Repeats that are complete in every cell of the question.
        folds: Folds, 1 for a fixed split.
        train_patients, train_images: What the point learned from, mean over its cells.
        flag: What limits the number.
        reason: Why it has no interval, or no value.
    """

    kind: str
    task: str
    protocol: str
    level: str
    metric: str
    arm: str
    baseline: str | None
    fraction: float | None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    df: float | None = None
    smallest_effect: float | None = None
    n_patients: int = 0
    n_positive_patients: int = 0
    n_images: int = 0
    repeats: int = 0
    folds: int = 1
    train_patients: float | None = None
    train_images: float | None = None
    flag: str = ""
    reason: str = ""


def answers(
    board: Board,
    *,
    pairs: Sequence[tuple[str, str]] = (),
    comparisons: Callable[[Answer], int] = lambda _: 1,
    ruler: str | None = None,
) -> Iterator[Answer]:
    """Every answer about `board`.

    Args:
        board: The scores of a task under a protocol.
        pairs: Comparisons (arm, baseline) whose direction is declared.
        comparisons: How many comparisons share an answer's error rate.
        ruler: The arm whose labels the others save; None asks nothing of the kind.
    """
    asked = questions(board.arms, board.fractions, pairs=pairs)
    for at in dict.fromkeys((board.unit, "patient")):
        view = at_level(board, at)
        if view is None:
            continue
        blank = Answer(
            "", board.task, board.protocol, at, "", "", None, None,
            n_patients=len(board.truth.folds),
            n_images=len(board.truth.labels),
            folds=board.folds,
        )  # fmt: skip
        for name, metric in WITH_INTERVALS.items():
            measured = measure(metric, view)
            start = replace(blank, metric=name, n_positive_patients=measured.scarcest)
            yield from _with_intervals(view, measured, asked, start, comparisons)
            if name == PRIMARY_METRIC and ruler in board.arms and len(board.fractions) > 1:
                yield from _labels_saved(view, measured, start, board.arms.index(ruler))
        for name, plain in PLAIN.items():
            yield from _plain(view, plain, replace(blank, metric=name))


def _with_intervals(
    board: Board,
    measured: Measured,
    asked: Sequence[Question],
    start: Answer,
    comparisons: Callable[[Answer], int],
) -> Iterator[Answer]:
    for repeats, group in _by_repeats(board, asked):
        blanks = [_blank(board, question, start, repeats) for question in group]
        if not repeats.any():
            yield from (replace(blank, reason="no repeat is complete") for blank in blanks)
            continue
        weights = np.stack([question.weights for question in group])
        chosen = of_repeats(measured, repeats)
        single = group[0].single
        why = limits.refusal(
            board.truth, measured, unit=board.unit, repeats=int(repeats.sum()), single=single
        )
        if why:
            estimates = np.tensordot(weights, chosen.value, 2).mean(axis=-1)
            for blank, estimate in zip(blanks, estimates, strict=True):
                yield replace(blank, estimate=_number(estimate), reason=why)
            continue
        answer = _singles if single else _contrasts
        for first in range(0, len(group), AT_ONCE):
            here = slice(first, first + AT_ONCE)
            for one in answer(chosen, weights[here], blanks[here], comparisons):
                near = one.estimate if single and one.metric == "auc" else None
                yield _flagged(one, board.truth, measured, single=near)


def _by_repeats(board: Board, asked: Sequence[Question]) -> Iterator[tuple[Bools, list[Question]]]:
    """Questions of one sort (levels, differences or drops), with the repeats complete for them.

    Repeats are paired: one that lacks a cell of the question is used for none of its cells.
    """
    groups: dict[tuple[bool, int, bytes], list[Question]] = {}
    for question in asked:
        repeats = board.complete[question.weights != 0].all(axis=0)
        sort = question.single, folds_felt(question.kind, board.folds), repeats.tobytes()
        groups.setdefault(sort, []).append(question)
    for (*_, repeats), group in groups.items():
        yield np.frombuffer(repeats, dtype=np.bool_), group


def _blank(board: Board, question: Question, start: Answer, repeats: Bools) -> Answer:
    place = None
    if question.fraction is not None:
        place = board.arms.index(question.arm), board.fractions.index(question.fraction)
    return replace(
        start,
        kind=question.kind,
        arm=question.arm,
        baseline=question.baseline,
        fraction=question.fraction,
        repeats=int(repeats.sum()),
        train_patients=None if place is None else _number(board.train_patients[place]),
        train_images=None if place is None else _number(board.train_images[place]),
        flag=_marks(repeats, int(board.unfinished[question.weights != 0].sum())),
    )


def _singles(
    measured: Measured,
    weights: Floats,
    blanks: Sequence[Answer],
    comparisons: Callable[[Answer], int],
) -> Iterator[Answer]:
    """Answers about one arm each; weights (questions, arms, fractions)."""
    del comparisons  # a single arm is not tested
    found = level(
        np.tensordot(weights, measured.value, 2),
        np.tensordot(weights, measured.without, 2),
        measured.scarcest - 1.0,
        floor=measured.floor,
        folds=blanks[0].folds,
    )
    for place, blank in enumerate(blanks):
        one = _filled(blank, found, place)
        if one.low is not None:
            yield one
        elif one.estimate == 1:
            share = 3 / measured.scarcest
            yield replace(
                one,
                reason=f"perfect on all {measured.scarcest} patients of the scarcest side; by the "
                f"rule of three up to {percent(share)} of such patients could be ranked wrongly",
            )
        else:
            yield replace(one, reason="scores are constant")


def _contrasts(
    measured: Measured,
    weights: Floats,
    blanks: Sequence[Answer],
    comparisons: Callable[[Answer], int],
) -> Iterator[Answer]:
    """Answers about differences; weights (questions, arms, fractions)."""
    theta = np.tensordot(weights, measured.value, 2)  # (questions, repeats)
    without = np.tensordot(weights, measured.without, 2)  # (questions, repeats, patients)
    df = patient_df(measured, weights)
    folds = folds_felt(blanks[0].kind, blanks[0].folds)
    found = contrast(theta, without, df, folds=folds)
    tested = blanks[0].metric == PRIMARY_METRIC
    effects = np.full(len(blanks), np.nan)
    if tested:
        effects = smallest_effect(
            pilot(components(theta, without), df, folds=folds),
            patients=without.shape[-1],
            repeats=theta.shape[-1],
            alpha=ALPHA / np.array([comparisons(blank) for blank in blanks]),
        )
    for place, blank in enumerate(blanks):
        one = _filled(blank, found, place)
        if one.low is None or one.high is None:
            same = not theta[place].any() and not without[place].any()
            yield replace(
                one,
                p=1.0 if same and tested else None,
                reason="identical in every repeat, with and without any patient"
                if same
                else "the variance is estimated as zero",
            )
            continue
        yield replace(
            one,
            low=max(one.low, -reach(one.kind)),
            high=min(one.high, reach(one.kind)),
            p=_number(found.p[place]) if tested else None,
            smallest_effect=_number(effects[place]),
        )


def _labels_saved(board: Board, measured: Measured, start: Answer, ruler: int) -> Iterator[Answer]:
    """At which fraction the arm `ruler` reaches what each other arm has at each fraction."""
    for arm, at in product(range(len(board.arms)), range(len(board.fractions))):
        if arm == ruler:
            continue
        along = labels_saved.path(arm, ruler, at, board.fractions, n_arms=len(board.arms))
        question = Question(
            "labels_saved", board.arms[arm], board.arms[ruler], board.fractions[at],
            np.abs(along.weights).max(axis=0),  # every cell that plays a part
        )  # fmt: skip
        repeats = board.complete[question.weights != 0].all(axis=0)
        blank = _blank(board, question, start, repeats)
        if not repeats.any():
            yield replace(blank, reason="no repeat is complete")
            continue
        chosen = of_repeats(measured, repeats)
        theta = np.tensordot(along.weights, chosen.value, 2)
        why = limits.refusal(board.truth, measured, unit=board.unit, repeats=blank.repeats)
        if why:
            found = labels_saved.crossing(along, theta.mean(axis=-1))
            yield replace(blank, estimate=found.fraction, reason=why)
            continue
        without = np.tensordot(along.weights, chosen.without, 2)
        found = labels_saved.reached(
            along,
            contrast(theta, without, patient_df(chosen, along.weights), folds=board.folds),
        )
        one = replace(
            blank,
            estimate=found.fraction,
            low=found.low,
            high=found.high,
            reason=found.reason,
        )
        yield _flagged(one, board.truth, measured)


def _filled(blank: Answer, found: Intervals, place: int) -> Answer:
    return replace(
        blank,
        estimate=_number(found.estimate[place]),
        low=_number(found.low[place]),
        high=_number(found.high[place]),
        df=_number(found.df[place]),
    )


def _flagged(
    one: Answer, truth: Truth, measured: Measured, *, single: float | None = None
) -> Answer:
    said = limits.flags(truth, measured, repeats=one.repeats, single=single)
    return replace(one, flag="; ".join(filter(None, [one.flag, *said])))


def _plain(board: Board, metric: Plain, start: Answer) -> Iterator[Answer]:
    """Means over complete repeats; folds count by their images, for no score crosses folds."""
    values = np.stack([_within_folds(metric, arm, board.truth) for arm in board.logits])
    for question in questions(board.arms, board.fractions):
        if question.kind != "level":
            continue
        place = board.arms.index(question.arm), board.fractions.index(question.fraction)
        repeats = board.complete[place]
        blank = _blank(board, question, start, repeats)
        if not repeats.any():
            yield replace(blank, reason="no repeat is complete")
            continue
        estimate = _number(values[place][repeats].mean())
        known = "no interval is known to hold for this metric"
        absent = "a class is missing from the test set, or from a fold of it"
        yield replace(blank, estimate=estimate, reason=absent if estimate is None else known)


def _within_folds(metric: Plain, logits: Floats, truth: Truth) -> Floats:
    fold_of = truth.folds[truth.patients]
    parts, sizes = [], []
    for fold in np.unique(truth.folds):
        here = fold_of == fold
        inner = replace(truth, labels=truth.labels[here], patients=truth.patients[here])
        parts.append(metric(logits[..., here, :].astype(np.float64), inner))
        sizes.append(here.sum())
    return np.average(parts, axis=0, weights=sizes)


def _marks(repeats: Bools, unfinished: int) -> str:
    said = []
    if not repeats.all():
        said.append(f"{len(repeats) - int(repeats.sum())} of {len(repeats)} repeats left out")
    if unfinished:
        said.append(f"{plural(unfinished, 'cell')} with unfinished training")
    return "; ".join(said)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
