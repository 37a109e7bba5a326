"""A figure for each task, protocol and level that has numbers of a kind."""

from collections.abc import Callable, Sequence
from typing import Any

from hounsfield.report import words
from hounsfield.report.drawing import Figure
from hounsfield.report.points import PRIMARY, Point, judged_tasks, levels, points
from hounsfield.report.study_folder import Study


def panels(
    study: Study,
    kind: str,
    *,
    name: str,
    caption: str,
    draw: Callable[[Sequence[Point]], dict[str, Any]],
) -> list[Figure]:
    """The figures, of the primary metric.

    Args:
        study: Whose numbers.
        kind: Of the numbers, as in `results.parquet`.
        name: What the figures' names begin with.
        caption: What stands above each, without what its numbers were judged on.
        draw: From points of one task, protocol and level, all with an estimate, to a
            specification.
    """
    several = len(study.protocols) > 1
    figures = []
    for task in judged_tasks(study):
        for protocol in study.protocols:
            for level in levels(study, task):
                place = {"task": task, "protocol": protocol, "level": level, "metric": PRIMARY}
                found = [
                    point
                    for point in points(study, kind=kind, **place)
                    if point.estimate is not None
                ]
                if found:
                    figures.append(
                        Figure(
                            f"{name}-{words.slug(task, protocol, level)}",
                            f"{task}, by {level}{f', protocol {protocol}' if several else ''}",
                            f"{caption}, judged on {found[0].judged_on}.",
                            draw(found),
                        )
                    )
    return figures
