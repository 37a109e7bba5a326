"""The reporting checklist: what the study can fill is filled, the rest is named for the author.

The items are ours, after what CLAIM 2024 (Radiology: Artificial Intelligence 6:e240300),
TRIPOD+AI (BMJ 2024;385:e078378) and METRICS (Insights into Imaging 15:8) ask for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hounsfield.judge.declared import CONTROLS
from hounsfield.report import words
from hounsfield.report.parts import data, provenance
from hounsfield.report.parts.limits import limits
from hounsfield.report.points import PRIMARY, judged_tasks, levels, points
from hounsfield.report.study_folder import Run, Study, mapping

AUTHOR = "for the author"  # stands in what a study tells where a part of it is missing


def checklist(study: Study) -> list[tuple[str, str]]:
    """Every item's name, and what the study tells about it; empty where the author must."""
    return [(name, fill(study) if fill else "") for name, fill in ITEMS]


def _question(study: Study) -> str:
    primary = mapping(study.facts.get("primary"))
    if not primary or any("No primary question was set" in one for one in limits(study)):
        return ""
    arm, baseline = (words.arm_name(str(primary.get(key))) for key in ("arm", "baseline"))
    at = primary.get("fraction")
    fraction = f" with {words.percent(at)} of the labels" if isinstance(at, float) else ""
    changed = study.facts.get("primary_changed")
    fixed = "Changed after cells had run" if changed else "Fixed before anything ran"
    return (
        f"{fixed}: {arm} against {baseline} on {primary.get('task')}{fraction}, "
        f"{words.metric_name(str(primary.get('metric', PRIMARY)))} by {primary.get('level')}; "
        f"plan {study.facts.get('plan_hash', 'without a hash')}. Its date is for the author"
    )


def _source(study: Study) -> str:
    told = []
    for name, store in mapping(study.facts.get("stores")).items():
        vendors = [vendor or "not told" for vendor in mapping(mapping(store).get("vendors"))]
        if vendors:
            told.append(f"store {name}: vendors {words.listed(vendors)}")
    if not told:
        return ""
    return f"{'; '.join(told)}. The source, its licence and its dates are for the author"


def _flow(study: Study) -> str:
    told = []
    for name, store in mapping(study.facts.get("stores")).items():
        flow = mapping(mapping(store).get("flow"))
        if flow:
            steps = ", ".join(f"{count} {step.replace('_', ' ')}" for step, count in flow.items())
            told.append(f"store {name}: {steps}")
    for name, task in mapping(mapping(study.facts.get("config")).get("tasks")).items():
        only = [_only(key, value) for key, value in mapping(mapping(task).get("where")).items()]
        kept = f", with {words.listed(only)}" if only else ""
        told.append(f"task {name}: images with a label {mapping(task).get('label', name)}{kept}")
    return f"{'; '.join(told)}. Who was eligible is for the author" if told else ""


def _only(column: str, allowed: Any) -> str:
    """What a filter of a task lets through: `age from 18 to 90`, `view = axial and coronal`."""
    if isinstance(allowed, list):
        allowed = words.listed([*map(str, allowed)])
    if not isinstance(allowed, Mapping):
        return f"{column} = {allowed}"
    ends = [f"{word} {allowed[key]:g}" for word, key in (("from", "min"), ("to", "max"))
            if isinstance(allowed.get(key), int | float)]  # fmt: skip
    return " ".join([column, *ends])


def _partition(study: Study) -> str:
    return " ".join(data.leaks(study))


def _prevalence(study: Study) -> str:
    if not any("counts" in task.facts for task in study.tasks):
        return ""
    return (
        "Patients and images by class and part are in the report's section Data. Demographics are "
        "for the author"
    )


def _missing(study: Study) -> str:
    lost = study.planned_cells - len(study.cells)
    return (
        f"{len(study.cells)} of {study.planned_cells} planned cells are there, {lost} are not; "
        f"{len(study.left_out)} of those that are there took no part. Files that were left out "
        "stand by reason in the report's section Data; an image without a label takes no part in "
        "its task. Why labels are missing is for the author"
    )


def _preprocessing(study: Study) -> str:
    config = mapping(study.facts.get("config"))
    size, stores = config.get("image_size"), study.facts.get("stores")
    windows = sorted(
        {
            str(mapping(task).get("window"))
            for task in mapping(config.get("tasks")).values()
            if mapping(task).get("window")
        }
    )
    if not size:
        return ""
    shown = f", window {words.listed(windows)}" if windows else ""
    sizes = sorted({str(mapping(one).get("size")) for one in mapping(stores).values()} - {"None"})
    stored = f" from slices of {words.listed(sizes)} pixels" if sizes else ""
    return (
        f"Images of {size} by {size} pixels{stored}{shown}; spacing is in the section Data, "
        "versions and hashes are under Provenance"
    )


def _arms(study: Study) -> str:
    runs = [
        f"{words.arm_name(name)}: {words.plural(len(mine), 'run')} of "
        f"{mine[0].config.get('backbone', 'a backbone that is not told')}, "
        f"{words.spanned(_steps(mine), 'step')}, "
        f"{words.duration(sum(provenance.seconds(run.summary) for run in mine))} in all"
        for name in dict.fromkeys(run.name for run in study.runs)
        if (mine := [run for run in study.runs if run.name == name])
    ]
    cards = mapping(study.facts.get("arms"))
    outside = [
        f"{words.arm_name(arm)}: weights {card.get('file')}, SHA-256 {card.get('sha256')}, "
        f"licence {card.get('licence') or 'not told'}, trained on "
        f"{card.get('corpus') or 'what is not told'}"
        for arm in study.arms
        if (card := mapping(mapping(cards.get(arm)).get("card")))
    ]
    return "; ".join([*runs, *outside])


def _steps(runs: Sequence[Run]) -> list[int]:
    return [steps for run in runs if isinstance(steps := run.summary.get("steps"), int)]


def _tuning(study: Study) -> str:
    told = []
    for arm in study.arms:
        mine = [cell.facts["trials"] for cell in study.cells
                if cell.arm == arm and isinstance(cell.facts.get("trials"), int)]  # fmt: skip
        if mine:
            told.append(f"{words.arm_name(arm)} {words.span(mine)}")
    if not told:
        return ""
    return (
        f"Trials a cell: {', '.join(told)}; the best on the cell's own validation patients was "
        "kept. Test data chose nothing"
    )


def _ladder(study: Study) -> str:
    if not study.fractions:
        return ""
    shares = words.listed([words.percent(fraction) for fraction in study.fractions])
    seed = mapping(study.facts.get("config")).get("seed", "not told")
    what = "Nested fractions" if len(study.fractions) > 1 else "Fraction"
    return (
        f"{what} {shares}, by patient, stratified by class, "
        f"{words.plural(study.repeats, 'draw')}, seed {seed}. Draw and training seed vary "
        "together; the pool of patients does not"
    )


def _power(study: Study) -> str:
    effects = [
        f"{words.arm_name(point.arm)} against {words.arm_name(point.baseline or '')} on "
        f"{point.task} at {words.percent(point.fraction or 0)}: "
        + (f"{point.smallest_effect:.3f}" if point.smallest_effect <= 1 else "none whatever")
        for point in points(study, kind="difference", metric=PRIMARY)
        if point.smallest_effect is not None
        and point.baseline == mapping(study.facts.get("primary")).get("baseline")
        and point.level == mapping(study.facts.get("primary")).get("level")
    ]
    return f"Differences seen with 80 % probability: {'; '.join(effects)}" if effects else ""


def _metrics(study: Study) -> str:
    found = study.results["metric"].drop_nulls().unique(maintain_order=True).to_list()
    names = words.listed([words.metric_name(name) for name in found])
    shown = dict.fromkeys(level for task in judged_tasks(study) for level in levels(study, task))
    by = words.listed([f"by {level}" for level in shown]) + (" apart" if len(shown) > 1 else "")
    return (
        f"{names}; {by}. Decisions are the class with the highest score; no threshold was "
        "chosen on validation patients"
        if found
        else ""
    )


def _intervals(study: Study) -> str:
    if study.results["low"].drop_nulls().is_empty():
        return ""
    return "Crossed jackknife t over patients and repeats, 95 %"


def _tests(study: Study) -> str:
    if not study.verdicts:
        return ""
    outcomes = [str(verdict.get("verdict")) for verdict in study.verdicts]
    return f"Paired, Holm within the declared family; verdicts: {', '.join(outcomes)}"


def _curves(study: Study) -> str:
    if len(study.fractions) == 1:
        return "None: the study trains on one share of the labels"
    return "Label curves with bands over all draws" if len(study.results) else ""


def _calibration(study: Study) -> str:
    if "ece" not in study.results["metric"].to_list():
        return ""
    return (
        "Expected calibration error, slope and intercept (two classes), and reliability plots, "
        "all without intervals. A decision curve is for the author"
    )


def _subgroups(study: Study) -> str:
    controls = [arm for arm in study.arms if arm in CONTROLS]
    if not controls:
        return ""
    return f"Shortcut probes: {words.listed(controls)}. Subgroups are for the author"


def _failures(study: Study) -> str:
    count = len(study.pictures.get("mistakes") or ())
    return f"{words.plural(count, 'confident mistake')} shown as pictures" if count else ""


def _baselines(study: Study) -> str:
    there = [arm for arm in study.arms if arm in ("scratch", "imagenet", *CONTROLS)]
    return words.listed([words.arm_name(arm) for arm in there])


def _negative(study: Study) -> str:
    return f"{' '.join(limits(study))} What else departs from the plan is for the author"


def _release(study: Study) -> str:
    versions = [value for name, value in provenance.facts(study) if name == "hounsfield"]
    return (
        f"hounsfield {words.listed(versions)}; scores of every cell, splits and ladders lie in the "
        "study's folder. A model card and the intended use are for the author"
    )


ITEMS: tuple[tuple[str, Callable[[Study], str] | None], ...] = (
    ("Question and primary comparison, fixed beforehand", _question),
    ("Data source, licence, dates, scanners", _source),
    ("Eligibility and flow from files to slices", _flow),
    ("Reference standard, readers and their agreement", None),
    ("Partition by patient, leaks, overlap with pre-training", _partition),
    ("Demographics and prevalence by part and fraction", _prevalence),
    ("Missing data and exclusions", _missing),
    ("Preprocessing", _preprocessing),
    ("Every arm: architecture, origin, steps, hours", _arms),
    ("Tuning: space, trials, data", _tuning),
    ("Label ladder and sources of variance", _ladder),
    ("Sample size and smallest difference that can be seen", _power),
    ("Metrics that fit task and prevalence", _metrics),
    ("Intervals", _intervals),
    ("Paired tests, multiplicity, verdicts", _tests),
    ("Learning curves with bands", _curves),
    ("Calibration", _calibration),
    ("Subgroups, shortcuts, external test set", _subgroups),
    ("Failure analysis", _failures),
    ("Baselines", _baselines),
    ("Negative results and deviations from the plan", _negative),
    ("Release of code, weights, splits, scores", _release),
)
