"""The numbers of a study cut to size: what a table or a figure shows, as plain rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hounsfield.judge.answers import PRIMARY_METRIC
from hounsfield.report import words
from hounsfield.report.study_folder import Cell, Study

PRIMARY = PRIMARY_METRIC


@dataclass(frozen=True)
class Point:
    """One number of a study with its interval, its n and what limits it.

    Attributes:
        kind, task, protocol, level, metric, arm, baseline, fraction: What the number is of.
        estimate, low, high: The number and its interval; None where it has none.
        p, p_holm: Of the paired test, as it is and within its family.
        df: Degrees of freedom of the interval.
        smallest_effect: The difference that would have been seen in 80 of 100 such studies.
        n_patients, n_positive_patients, n_images, repeats, folds: What it rests on (test side).
        flag, reason: What limits it, and why it has no interval.
        patients, images: Training patients and images behind it, over repeats and folds.
        unfinished, failed, absent: How many of its cells ended so.
        of_series: Whether each score is a series', not an image's.
    """

    kind: str
    task: str
    protocol: str
    level: str
    metric: str
    arm: str
    baseline: str | None
    fraction: float | None
    estimate: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    df: float | None
    smallest_effect: float | None
    n_patients: int | None
    n_positive_patients: int | None
    n_images: int | None
    repeats: int | None
    folds: int | None
    flag: str
    reason: str
    patients: tuple[int, ...] = ()
    images: tuple[int, ...] = ()
    unfinished: int = 0
    failed: int = 0
    absent: int = 0
    of_series: bool = False

    @property
    def signed(self) -> bool:
        """Whether zero means "no difference"."""
        return self.kind not in ("level", "curve_area", "labels_saved")

    @property
    def text(self) -> str:
        """The estimate and its interval, or the estimate and why there is no interval."""
        if self.kind == "labels_saved":
            return self._labels
        if self.low is None or self.high is None:
            return f"{words.number(self.estimate, signed=self.signed)} (no interval)"
        return words.interval(self.estimate, self.low, self.high, signed=self.signed)

    @property
    def _labels(self) -> str:
        """A share of the labels; its interval may be open on a side that leaves the ladder."""
        share, low, high = (
            words.DASH if one is None else words.percent(one)
            for one in (self.estimate, self.low, self.high)
        )
        if self.low is None and self.high is None:
            return f"{share} (no interval)"
        if self.low is None or self.high is None:
            return f"{share} ({f'below {high}' if self.low is None else f'above {low}'})"
        return f"{share} [{low},{words.HARD}{high}]"

    @property
    def limits(self) -> str:
        """What a reader must know before quoting the number; empty where nothing."""
        return "; ".join(part for part in (self.flag, self.reason) if part)

    @property
    def trained_on(self) -> str:
        """`5 patients, 120-122 images`."""
        if not self.patients:
            return "not known"
        return f"{words.spanned(self.patients, 'patient')}, {words.spanned(self.images, 'image')}"

    @property
    def scored(self) -> str:
        """`412 images`, `40 series`; empty where a patient is one row of scores."""
        if self.n_images in (None, self.n_patients):
            return ""
        return (
            f"{self.n_images:,} series" if self.of_series else words.plural(self.n_images, "image")
        )

    @property
    def judged_on(self) -> str:
        """`16 test patients (7 of the rarer class), 412 images, 3 repeats`."""
        if self.n_patients is None:
            return ""
        rarer = (
            f" ({self.n_positive_patients} with the rarest class)"
            if self.n_positive_patients is not None
            else ""
        )
        parts = [words.plural(self.n_patients, "test patient") + rarer]
        if self.scored:
            parts.append(self.scored)
        if self.repeats:
            parts.append(words.plural(self.repeats, "repeat"))
        if self.folds and self.folds > 1:
            parts.append(words.plural(self.folds, "fold"))
        return ", ".join(parts)


def points(
    study: Study,
    *,
    kind: str = "level",
    task: str | None = None,
    protocol: str | None = None,
    level: str | None = None,
    metric: str | None = None,
) -> list[Point]:
    """The results of one kind, in the study's order of tasks, protocols, fractions and arms."""
    given = {"kind": kind, "task": task, "protocol": protocol, "level": level, "metric": metric}
    wanted = {column: value for column, value in given.items() if value is not None}
    rows = [row for row in study.rows if all(row[key] == wanted[key] for key in wanted)]
    tasks = [item.name for item in study.tasks]
    found = [_point(study, row) for row in rows]
    return sorted(
        found,
        key=lambda point: (
            _rank(point.task, tasks),
            _rank(point.protocol, study.protocols),
            point.level != main_level(study, point.task),
            point.metric != PRIMARY,
            point.metric,
            _rank(point.arm, study.arms),
            _rank(point.baseline or "", study.arms),
            -(point.fraction or 0.0),
        ),
    )


def both_ways(found: Sequence[Point]) -> list[Point]:
    """Each difference and, where it is not there itself, its mirror: baseline minus arm."""
    there = {(point.arm, point.baseline) for point in found}
    mirrors = [mirror(point) for point in found if (point.baseline, point.arm) not in there]
    return [*found, *mirrors]


def mirror(point: Point) -> Point:
    """The same comparison, seen from the other side."""
    return replace(
        point,
        arm=point.baseline or "",
        baseline=point.arm,
        estimate=_minus(point.estimate),
        low=_minus(point.high),
        high=_minus(point.low),
    )


def first_baseline(study: Study) -> str:
    """The primary question's baseline, else scratch, else the first arm."""
    primary = study.facts.get("primary")
    told = primary.get("baseline") if isinstance(primary, dict) else None
    names = [told, "scratch", *study.arms]
    return next((str(name) for name in names if name in study.arms), "")


def main_level(study: Study, task: str) -> str:
    """The level that a task is judged at first: what the study says, else what there is."""
    told = str(study.task(task).facts.get("level") or "")
    found = _levels(study, task)
    if told in found or not found:
        return told or "slice"
    return "slice" if "slice" in found else min(found)


def levels(study: Study, task: str) -> list[str]:
    """Every level that a task is judged at, the main one first; of a task of patients that alone.

    There a patient is one row of scores, and a "slice" would be that patient again.
    """
    found = _levels(study, task)
    main = main_level(study, task)
    if main == "patient":
        return [main]
    return sorted(found, key=lambda level: (level != main, level))


def main_protocol(study: Study) -> str:
    """The protocol that is shown first."""
    return study.protocols[0] if study.protocols else "fair"


def judged_tasks(study: Study) -> list[str]:
    """The tasks that have numbers, in the study's order."""
    found = {row["task"] for row in study.rows}
    return [task.name for task in study.tasks if task.name in found]


def cells_of(
    study: Study, task: str, arm: str, protocol: str, fraction: float | None
) -> list[Cell]:
    """The cells behind a number."""
    return [
        cell
        for cell in study.cells_at.get((task, arm, protocol), ())
        if fraction is None or abs(cell.fraction - fraction) < 1e-9
    ]


def _point(study: Study, row: dict[str, object]) -> Point:
    values = {name: row[name] for name in Point.__dataclass_fields__ if name in row}
    for name in ("flag", "reason"):
        values[name] = words.signs(str(values.get(name) or ""))
    cells = cells_of(
        study,
        str(row["task"]),
        str(row["arm"]),
        str(row["protocol"]),
        row["fraction"] if isinstance(row["fraction"], float) else None,
    )
    return Point(
        **values,  # type: ignore[arg-type]
        patients=_counts(cells, "n_train_patients"),
        images=_counts(cells, "n_train_images"),
        unfinished=sum(cell.status == "unfinished" for cell in cells),
        failed=sum(cell.status == "failed" for cell in cells),
        absent=_absent(study, cells) if row["kind"] == "level" else 0,
        of_series=study.task(str(row["task"])).facts.get("level") == "series",
    )


def _absent(study: Study, cells: Sequence[Cell]) -> int:
    """How many cells the plan names at one place beyond those that are there."""
    planned = study.repeats * study.folds
    return max(planned - len({(cell.repeat, cell.fold) for cell in cells}), 0)


def _counts(cells: Sequence[Cell], fact: str) -> tuple[int, ...]:
    found = (cell.facts.get(fact) for cell in cells)
    return tuple(value for value in found if isinstance(value, int))


def _levels(study: Study, task: str) -> set[str]:
    return {row["level"] for row in study.rows if row["task"] == task and row["level"]}


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _rank(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)
