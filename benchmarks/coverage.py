"""Do the intervals keep their promise? Simulated studies whose truth is known.

    python benchmarks/coverage.py [--studies 1000] [--seed 0] [--only fixed|folds]

Prints `name value` lines in percent. `type1_*`: equal arms called different at the 5 % level.
`coverage_*`: 95 % intervals that hold the truth. `typical_*`: the parts of the variance of a
difference, for one patient and one repeat, in thousandths. The worlds are in `simulated/`.
"""

import argparse
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hounsfield.judge import metrics
from hounsfield.judge.jackknife import Intervals, components, contrast, level
from hounsfield.judge.metrics import Measured, Truth
from hounsfield.judge.power import pilot
from hounsfield.judge.questions import Question, questions
from hounsfield.judge.view import patient_df
from hounsfield.seeding import stream
from simulated import fixed, folds

Floats = NDArray[np.float64]

FIXED = ((16, 0.80), (50, 0.80), (16, 0.95))  # patients, AUC at the small fraction
FOLDS = ((16, 8), (50, 8), (16, 30), (50, 30))  # patients, features that a model must weigh


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["fixed", "folds"])
    options = parser.parse_args()
    if options.only != "folds":
        show_typical(options.seed, options.studies)
        for patients, auc in FIXED:
            show(
                fixed_counts(options.seed, options.studies, patients, auc),
                f"{patients}_patients" + ("" if auc == 0.80 else f"_auc_{100 * auc:.0f}"),
            )
    if options.only != "fixed":
        for patients, features in FOLDS:
            show(
                fold_counts(options.seed, options.studies, patients, features),
                f"{patients}_patients_folds" + ("" if features == 8 else "_hard"),
            )


def show_typical(seed: int, studies: int) -> None:
    """Print the mean parts of the variance of a difference, which planning without a pilot uses."""
    question = next(
        one
        for one in questions(("one", "other"), fixed.FRACTIONS)
        if one.kind == "difference" and one.fraction == min(fixed.FRACTIONS)
    )
    parts = []
    for number in range(studies):
        logits, truth = fixed.study(stream(seed, "typical", number), 50, 0.80)
        measured = metrics.auc(logits, truth)
        theta = np.tensordot(question.weights, measured.value, 2)
        found = pilot(components(theta, np.tensordot(question.weights, measured.without, 2)), 1.0)
        parts.append((found.patients, found.repeats, found.both))
    for name, value in zip(("patients", "repeats", "both"), np.mean(parts, axis=0), strict=True):
        print(f"typical_{name} {1000 * value:.2f}", flush=True)


def show(counts: Iterator[dict[str, float]], suffix: str) -> None:
    """Print the mean of each count in percent."""
    total: Counter[str] = Counter()
    studies = 0
    for one in counts:
        studies += 1
        total.update(one)
    for name, count in total.items():
        print(f"{name}_{suffix} {100 * count / studies:.1f}", flush=True)


def fixed_counts(seed: int, studies: int, patients: int, auc: float) -> Iterator[dict[str, float]]:
    """What each study on a fixed test set adds to each count."""
    true = np.array([fixed.TRUE_AUC[auc]] * len(fixed.ARMS))
    for number in range(studies):
        rng = stream(seed, "fixed", patients, str(auc), number)
        yield counted(*fixed.study(rng, patients, auc), true, fixed.FRACTIONS)


def fold_counts(
    seed: int, studies: int, patients: int, features: int
) -> Iterator[dict[str, float]]:
    """What each cross-validated study adds; what is true of an arm is its mean over all studies."""
    made = [
        folds.study(stream(seed, "folds", patients, features, number), patients, features)
        for number in range(studies)
    ]
    true = np.mean([one.true for one in made], axis=(0, 1))  # (fractions,), both arms alike
    for one in made:
        yield counted(one.logits, one.truth, np.stack([true] * folds.ARMS), folds.FRACTIONS)


def counted(
    logits: Floats, truth: Truth, true: Floats, fractions: tuple[float, ...]
) -> dict[str, float]:
    """What one study adds to each count, at the small fraction and between the two."""
    measured = metrics.auc(logits, truth)
    n_folds = len(np.unique(truth.folds))
    found: dict[str, list[float]] = {}
    for question in questions(("one", "other"), fractions):
        theta, interval = answered(measured, question, n_folds)
        at = "_full" if question.fraction == fractions[0] else ""
        if question.single:
            truly = (question.weights * true).sum()
            held = float(interval.low <= truly <= interval.high)
            name = "coverage_arm" if question.kind == "level" else "coverage_curve_area"
            found.setdefault(name + at, []).append(held)
        elif question.baseline is not None:
            rejected = float(interval.p < 0.05)
            found[f"type1_{question.kind}{at}"] = [rejected]
            if question.kind == "difference":
                found[f"undecided_equal_arms{at}"] = [1 - rejected]
                naive = stats.ttest_1samp(theta, 0.0).pvalue
                found[f"type1_naive_t{at}"] = [float(naive < 0.05)]
                if n_folds > 1:
                    _, plain = answered(measured, question, 1)
                    found[f"type1_as_if_fixed{at}"] = [float(plain.p < 0.05)]
    return {name: float(np.mean(values)) for name, values in found.items()}


def answered(measured: Measured, question: Question, n_folds: int) -> tuple[Floats, Intervals]:
    """The estimates (repeats,) of a question, and its interval."""
    theta = np.tensordot(question.weights, measured.value, 2)
    without = np.tensordot(question.weights, measured.without, 2)
    if question.single:
        df = measured.scarcest - 1.0
        return theta, level(theta, without, df, floor=measured.floor, folds=n_folds)
    df = patient_df(measured, question.weights[None])[0]
    return theta, contrast(theta, without, df, folds=n_folds)


if __name__ == "__main__":
    main()
