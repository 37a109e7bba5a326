"""What a study declared before it ran: its size, its primary question, its families."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hounsfield.errors import InputError

SCRATCH = "scratch"  # the arm that starts from chance
CONTROLS = ("histogram", "position")  # arms that look for a shortcut: others are held against them
MARGIN = 0.05  # ours: an AUC lower by this much at the small fraction is no longer "not inferior"

Pair = tuple[str, str]  # arm, baseline


@dataclass(frozen=True)
class Primary:
    """The question that decides.

    Attributes:
        arm, baseline: The contrast.
        task, protocol, metric, level, fraction: Where it is asked.
        family: Comparisons that share one error rate, the contrast among them.
        hypotheses: Pairs of which the first is claimed to be more robust to few labels; none
            where the fraction is the largest, from which nothing drops.
        margin: How far below its baseline an arm may be at the small fraction and still count as
            not inferior.
    """

    arm: str
    baseline: str
    task: str
    protocol: str
    metric: str
    level: str
    fraction: float
    family: tuple[Pair, ...]
    hypotheses: tuple[Pair, ...]
    margin: float = MARGIN

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every declared comparison, in its declared direction."""
        return tuple(dict.fromkeys([*self.family, *self.hypotheses]))


@dataclass(frozen=True)
class Declared:
    """A study's size and question.

    Attributes:
        arms: In the study's order.
        fractions: Falling.
        repeats: Number of repeats.
        folds: Number of folds, 1 for a fixed split.
        levels: By task what a row of its scores is of: a slice, a series or a patient.
        primary: None where the study names none.
    """

    arms: tuple[str, ...]
    fractions: tuple[float, ...]
    repeats: int
    folds: int
    levels: Mapping[str, str]
    primary: Primary | None


def declared(facts: Mapping[str, Any]) -> Declared:
    """What `study.json` declares.

    Raises:
        InputError: A field is missing or of another kind.
    """
    try:
        primary = facts.get("primary")
        fractions = sorted((float(one) for one in facts["fractions"]), reverse=True)
        return Declared(
            arms=tuple(map(str, facts["arms"])),
            fractions=tuple(fractions),
            repeats=int(facts["repeats"]),
            folds=max(int(facts.get("folds") or 0), 1),
            levels=dict(_levels(facts.get("tasks"))),
            primary=_primary(primary, largest=fractions[0]) if primary else None,
        )
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"study.json lacks or garbles {error}. It was not written by this version of "
            "`hounsfield study`; run the study again: finished cells are kept."
        ) from None


def _levels(tasks: Any) -> Iterator[tuple[str, str]]:
    if isinstance(tasks, Mapping):
        for name, task in tasks.items():
            if isinstance(task, Mapping):
                yield str(name), str(task.get("level", "slice"))


def _primary(facts: Mapping[str, Any], *, largest: float) -> Primary:
    contrast = (str(facts["arm"]), str(facts["baseline"]))
    fraction = float(facts["fraction"])
    claimed = _pairs(facts.get("hypotheses") or [contrast])
    family = tuple(dict.fromkeys([contrast, *_pairs(facts.get("family") or [])]))
    return Primary(
        *contrast,
        task=str(facts["task"]),
        protocol=str(facts["protocol"]),
        metric=str(facts["metric"]),
        level=str(facts["level"]),
        fraction=fraction,
        family=family,
        hypotheses=claimed if fraction < largest else (),
        margin=float(facts.get("margin", MARGIN)),
    )


def _pairs(given: Sequence[Sequence[str]]) -> tuple[Pair, ...]:
    return tuple((str(arm), str(baseline)) for arm, baseline in given)
