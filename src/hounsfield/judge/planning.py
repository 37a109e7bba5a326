"""A judged study as the pilot of the next one: effects to be seen, patients and repeats needed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hounsfield.errors import InputError
from hounsfield.judge import limits, metrics, power
from hounsfield.judge.answers import ALPHA
from hounsfield.judge.declared import Primary, declared
from hounsfield.judge.jackknife import components
from hounsfield.judge.power import Pilot
from hounsfield.judge.questions import Question, folds_felt, questions, reach
from hounsfield.judge.scores import Board, boards, read_cells, read_facts
from hounsfield.judge.view import at_level, measure, of_repeats, patient_df
from hounsfield.wording import plural

REPEATS = (3, 5, 10)
PATIENT_FACTORS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Row:
    """A planned study: the smallest effect that it shows with 80 % probability, and its 80 % range.

    The range is that of the pilot's own patients being few.
    """

    patients: int
    repeats: int
    smallest_effect: float
    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """What a pilot says of one question.

    Attributes:
        question: In words.
        patients, repeats: Of the pilot.
        comparisons: That share the error rate; the plan is made at 0.05 over their number.
        reach: The largest difference that there can be.
        rows: Planned studies; none where the pilot's patients show no variance.
        floor: With the pilot's patients, what no number of repeats gets below; None where they
            show no variance.
        needed: Repeats -> test patients for the wanted effect; None where none suffice.
    """

    question: str
    patients: int
    repeats: int
    comparisons: int
    reach: float
    rows: tuple[Row, ...] = ()
    floor: float | None = None
    needed: dict[int, int | None] = field(default_factory=dict)


def plans(
    folder: Path,
    *,
    effect: float | None = None,
    patients: Sequence[int] = (),
    repeats: Sequence[int] = REPEATS,
) -> list[Plan]:
    """A plan for the primary contrast and one for each hypothesis' difference of drops.

    Args:
        folder: A study's.
        effect: Difference for which patients are wanted.
        patients: Test patients to plan for; none given: the pilot's number and its multiples.
        repeats: Repeats to plan for.

    Raises:
        InputError: No primary question, no finished cells for it, or too few patients; or sizes
            that no study has.
    """
    if effect is not None and not effect > 0:
        raise InputError(f"an effect of {effect:g} cannot be planned for; give one above 0.")
    if min(patients, default=2) < 2 or min(repeats, default=1) < 1:
        raise InputError("a study needs 2 test patients and 1 repeat at least; plan for more.")
    facts = read_facts(folder)
    known = declared(facts)
    primary = known.primary
    if primary is None:
        raise InputError(f"{folder} declares no primary question; name one in study.toml.")
    cells, _ = read_cells(folder, facts, known)
    home = (primary.task, primary.protocol)
    board = next((one for one in boards(cells, known) if (one.task, one.protocol) == home), None)
    if board is None:
        raise InputError(f"{folder} has no finished cell of {' / '.join(home)}; run the study.")
    return [
        _plan(board, primary, question, comparisons, effect, patients, repeats)
        for question, comparisons in _asked(board, primary)
    ]


def lines(plan: Plan, *, effect: float | None = None) -> list[str]:
    """The plan as text, a line each."""
    said = [
        plan.question,
        f"  pilot: {plural(plan.patients, 'test patient')}, {plural(plan.repeats, 'repeat')}"
        + (f"; {plan.comparisons} comparisons share the 5 %" if plan.comparisons > 1 else ""),
    ]
    if plan.floor is None:
        said.append("  The pilot is too small to tell what its patients add: no plan can be made.")
        return said
    said.append("  patients  repeats  smallest effect (80 % power) [80 % range]")
    said += [
        f"  {row.patients:8}  {row.repeats:7}  {_effect(row.smallest_effect, plan)} "
        f"[{_effect(row.low, plan)}, {_effect(row.high, plan)}]"
        for row in plan.rows
    ]
    said.append(_floor(plan.floor, plan))
    if plan.repeats == 1 or any(row.repeats == 1 for row in plan.rows):
        said.append("  One repeat: how training varies is not measured, and not counted here.")
    for repeats, needed in plan.needed.items():
        enough = plural(needed, "test patient") if needed else "no number of patients suffices"
        said.append(f"  To see {effect:.3g} with {plural(repeats, 'repeat')}: {enough}.")
    said.append("  Approximate; errs on the safe side where the arms come to differ.")
    return said


def _effect(effect: float, plan: Plan) -> str:
    return f"{effect:.3f}" if effect <= plan.reach else "none"


def _floor(floor: float, plan: Plan) -> str:
    with_these = f"  With {plural(plan.patients, 'patient')} no number of repeats"
    if floor > plan.reach:
        return f"{with_these} shows any difference."
    return f"{with_these} gets below {floor:.3f}."


def _asked(board: Board, primary: Primary) -> list[tuple[Question, int]]:
    found = {
        (one.kind, one.arm, one.baseline, one.fraction): one
        for one in questions(board.arms, board.fractions, pairs=primary.pairs)
    }
    contrast = found.get(("difference", primary.arm, primary.baseline, primary.fraction))
    drops = [found.get(("drop_difference", *pair, primary.fraction)) for pair in primary.hypotheses]
    asked = [(contrast, len(primary.family)), *((one, len(drops)) for one in drops)]
    return [(one, comparisons) for one, comparisons in asked if one is not None]


def _plan(
    board: Board,
    primary: Primary,
    question: Question,
    comparisons: int,
    effect: float | None,
    patients: Sequence[int],
    repeats: Sequence[int],
) -> Plan:
    pilot, seen = _pilot(board, primary.level, question)
    n_patients, alpha = len(board.truth.folds), ALPHA / comparisons
    planned = patients or [n_patients * factor for factor in PATIENT_FACTORS]
    bare = Plan(_in_words(question), n_patients, seen, comparisons, reach(question.kind))
    if pilot.patients <= 0:
        return bare
    return replace(
        bare,
        rows=tuple(_row(pilot, count, number, alpha) for count in planned for number in repeats),
        floor=float(power.floor_of_repeats(pilot, patients=n_patients, alpha=alpha)),
        needed={
            number: power.patients_needed(pilot, effect, repeats=number, alpha=alpha)
            for number in repeats
        }
        if effect is not None
        else {},
    )


def _pilot(board: Board, level: str, question: Question) -> tuple[Pilot, int]:
    """The parts of the question's variance, and how many repeats they come from."""
    view = at_level(board, level)
    repeats = board.complete[question.weights != 0].all(axis=0)
    if view is None or not repeats.any():
        raise InputError(f"{_in_words(question)}: no repeat is complete; finish the study first.")
    measured = of_repeats(measure(metrics.auc, view), repeats)
    refusal = limits.refusal(view.truth, measured, unit=board.unit, repeats=int(repeats.sum()))
    if refusal:
        raise InputError(f"{_in_words(question)}: {refusal}; no plan can be made from them.")
    weights = question.weights[None]
    theta = np.tensordot(weights, measured.value, 2)[0]
    without = np.tensordot(weights, measured.without, 2)[0]
    df = patient_df(measured, weights)[0]
    parts = components(theta, without)
    felt = folds_felt(question.kind, board.folds)
    return power.pilot(parts, df, folds=felt), int(repeats.sum())


def _row(pilot: Pilot, patients: int, repeats: int, alpha: float) -> Row:
    effect = power.smallest_effect(pilot, patients=patients, repeats=repeats, alpha=alpha)
    low, high = power.smallest_effect_range(pilot, patients=patients, repeats=repeats, alpha=alpha)
    return Row(patients, repeats, float(effect), float(low), float(high))


def _in_words(question: Question) -> str:
    what = "difference" if question.kind == "difference" else "difference of drops"
    return f"{what}, {question.arm} against {question.baseline}, at {question.fraction:.3g}"
