"""What limits what may be said: shortcuts, leaks, failed and unfinished cells, few patients."""

from collections import Counter
from collections.abc import Iterator

from hounsfield.judge.declared import CONTROLS
from hounsfield.report import words
from hounsfield.report.html import Section, render
from hounsfield.report.points import PRIMARY, both_ways, main_level, main_protocol, points
from hounsfield.report.study_folder import Study, mapping
from hounsfield.report.style import Style


def section(study: Study, style: Style) -> Section:
    """The list of all limits; it says so where there is none."""
    del style  # no figure
    return Section("limits", "Limits", render("limits", limits=limits(study)))


def limits(study: Study) -> list[str]:
    """A sentence for each thing that a reader must know before quoting a number."""
    found = [
        *_shortcuts(study),
        *map(str, study.facts.get("warnings") or ()),
        *_cells(study),
        *_patients(study),
        *_rates(study),
        *_scored_elsewhere(study),
        *study.missing,
    ]
    return [words.sentence(words.finished(text)) for text in dict.fromkeys(found)]


def _shortcuts(study: Study) -> Iterator[str]:
    """Arms that do not beat a control, by the interval of the paired difference."""
    for task in study.tasks:
        place = {
            "task": task.name,
            "protocol": main_protocol(study),
            "level": main_level(study, task.name),
            "metric": PRIMARY,
        }
        against = both_ways(points(study, kind="difference", **place))
        for control in (arm for arm in study.arms if arm in CONTROLS):
            even = [
                point
                for point in against
                if point.baseline == control
                and point.arm not in CONTROLS
                and (point.low is None or point.low <= 0)
            ]
            for arm in dict.fromkeys(point.arm for point in even):
                at = [
                    words.percent(point.fraction)
                    for point in even
                    if point.arm == arm and point.fraction
                ]
                yield (
                    f"On {task.name}, {words.arm_name(arm)} is not shown to beat the control "
                    f"{control} at {words.listed(at)} of the labels: what it learned there may "
                    "be a shortcut"
                )


def _cells(study: Study) -> Iterator[str]:
    planned, there = study.planned_cells, len(study.cells)
    if planned > there:
        lost = planned - there
        gap = f"{lost:,} of {planned:,} planned cells {'is' if lost == 1 else 'are'} not there"
        yield f"{gap}: the study is not finished"
    if study.left_out:
        reasons = Counter(
            str(cell.get("reason") or "no reason is stored") for cell in study.left_out
        )
        told = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
        more = f"; and {len(reasons) - 3} reasons more" if len(reasons) > 3 else ""
        yield f"{words.plural(len(study.left_out), 'cell')} took no part: {told}{more}"
    for arm, count in Counter(
        cell.arm for cell in study.cells if cell.status == "unfinished"
    ).items():
        yield (
            f"In {words.plural(count, 'cell')} of {words.arm_name(arm)} the training loss did not "
            "clearly fall: its numbers tell of the budget, not of the arm"
        )


def _patients(study: Study) -> Iterator[str]:
    for task in study.tasks:
        found = points(study, task=task.name, protocol=main_protocol(study), metric=PRIMARY)
        for reason in dict.fromkeys(point.reason for point in found if point.reason):
            yield f"On {task.name}: {reason}, so no interval is given"
        few = [point for point in found if "few patients" in point.flag and point.low is not None]
        if few:
            patients = words.plural(few[0].n_patients or 0, "test patient")
            more = f", not {few[0].scored}" if few[0].scored else ""
            yield (
                f"On {task.name}, the evidence is {patients}{more}: "
                "the intervals are wide, and a difference that is not seen may still be there"
            )
        near = [point for point in found if "near 1" in point.flag]
        if near:
            yield f"On {task.name} some values are near 1, where lower limits come out too high"
    if study.repeats < 3 and len(study.results):
        yield (
            f"{words.plural(study.repeats, 'repeat')} of each training "
            f"{'says' if study.repeats == 1 else 'say'} little about how results vary from "
            "training to training"
        )


def _rates(study: Study) -> Iterator[str]:
    edge = sum(bool(cell.facts.get("lr_at_edge")) for cell in study.cells)
    if edge:
        yield (
            f"In {words.plural(edge, 'cell')} the best learning rate is at the edge of the grid; "
            "a wider grid may do better"
        )


def _scored_elsewhere(study: Study) -> Iterator[str]:
    kinds = mapping(study.facts.get("arms"))
    theirs = [arm for arm in study.arms if mapping(kinds.get(arm)).get("kind") == "predictions"]
    if theirs:
        yield (
            f"The scores of {words.listed([*map(words.arm_name, theirs)])} were made elsewhere: "
            "Brier score, calibration error, slope and intercept hold for them only if `score` is "
            "the log odds of the second class, or the `logit_K` give probabilities by softmax"
        )
