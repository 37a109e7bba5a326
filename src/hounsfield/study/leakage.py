"""What the judged images of a study share with what anything in the study has seen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from hounsfield.data.leaks import EXAMPLES, Leak, Side, by_pair, looks
from hounsfield.data.store import Store
from hounsfield.errors import LeakError
from hounsfield.files import read_object, write_json
from hounsfield.progress import bar
from hounsfield.study.hashes import hash_of
from hounsfield.study.plan import Plan

FILE = "leaks.json"
REFUSED = ("patient", "slice")  # likeness alone may be chance, and is told instead


def check(plan: Plan, out: Path) -> list[dict[str, Any]]:
    """Everything that test images share with images that were trained on, labelled or not.

    Reading all pixels takes a while, so what `out` knows of the same images is taken from there.

    Raises:
        LeakError: A patient or an image stands on both sides and the study does not say
            `leaks = "report"`.
    """
    key = _key(plan)
    found = _known(out, key)
    if found is None:
        found = [asdict(leak) for leak in _found(plan)]
    bad = [leak for leak in found if leak["kind"] in REFUSED]
    if bad and plan.config.leaks == "refuse":
        told = "; ".join(over_folds(bad))
        raise LeakError(
            f"test images were trained on: {told}. Take them out of the stores, or set "
            'leaks = "report" to go on and have the report say so.'
        )
    return found


def keep(plan: Plan, out: Path, found: list[dict[str, Any]]) -> None:
    """Write what `check` found, so that it need not look again."""
    write_json(out / FILE, {"key": _key(plan), "leaks": found})


def over_folds(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What every two sides share, in words: of all folds together, for none tests another's."""
    borders: dict[tuple[str, ...], list[Leak]] = {}
    for leak in (Leak(**one) for one in found):
        borders.setdefault((leak.kind, leak.seen, leak.judged), []).append(leak)
    return [
        str(
            replace(
                same[0],
                count=sum(leak.count for leak in same),
                slices=sum(leak.slices for leak in same),
                examples=tuple(one for leak in same for one in leak.examples)[:EXAMPLES],
            )
        )
        for same in borders.values()
    ]


def _found(plan: Plan) -> Iterator[Leak]:
    folds = [_sides(plan, fold) for fold in range(max(plan.config.folds, 1))]
    with bar("leak check", total=sum(looks(seen, judged) for seen, judged in folds)) as shown:
        for seen, judged in folds:
            for leaks in by_pair(seen, judged, advance=shown.advance):
                yield from leaks


def _sides(plan: Plan, fold: int) -> tuple[list[Side], list[Side]]:
    """What is trained on in a fold, a side a store, and what judges, a side a task and store."""
    stores = {str(path): Store.open(path) for path in map(Path, plan.config.stores.values())}
    seen: dict[str, set[int]] = {path: set() for path in stores}
    judged: list[Side] = []
    for (name, of), split in plan.splits.items():
        if of != fold:
            continue
        task = plan.tasks[name]
        known = task.images[task.rows((*split.train, *split.val)).tolist()]
        seen[str(task.store)].update(known["slice"].to_list())
        tested = task.images[task.rows(split.test).tolist()]
        for outside, part in tested.group_by("outside"):
            path = str(task.external if outside[0] and task.external else task.store)
            rows = part["slice"].sort().to_numpy().astype(np.int64)
            judged.append(Side(f"the test set of {name}", stores[path], rows))
    for run in {cell.pretraining for cell in plan.cells if cell.fold == fold and cell.pretraining}:
        for path, rows in plan.pretrainings[run].rows().items():
            seen[path].update(rows.tolist())
    trained = [
        Side(f"what is trained on of {Path(path).name}", stores[path], np.array(sorted(rows)))
        for path, rows in seen.items()
        if rows
    ]
    return trained, judged


def _key(plan: Plan) -> str:
    """Changes with any image on either side."""
    return hash_of(
        [
            [task.hash for task in plan.tasks.values()],
            [split.hash for split in plan.splits.values()],
            sorted(plan.pretrainings),
        ]
    )


def _known(out: Path, key: str) -> list[dict[str, Any]] | None:
    content = read_object(out / FILE)
    return content["leaks"] if content.get("key") == key else None
