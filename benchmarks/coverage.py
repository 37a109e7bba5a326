"""Do the intervals keep their promise? Simulated studies whose truth is known.

    python benchmarks/coverage.py [--studies 1000] [--seed 0] [--only fixed|folds]

Prints `name value` lines in percent, of studies with 2, 3 and 5 repeats:

- `coverage_*`: 95 % intervals that hold the truth;
- `type1_*`: equal arms called different at the 5 % level;
- `type1_calm_*`: the same among the quarter of the studies whose repeats varied least;
- `power_*`: arms called different that differ by 2.8 standard errors, which a test that knew the
  standard error would find in 80 %;
- `type1_naive_t_*`, `type1_as_if_fixed_*`: by the t test over repeats, and by the interval for a
  fixed test set, which is not made for folds.

`typical_*`: the parts of the variance of a difference, for one patient and one repeat, in
thousandths. The worlds are in `simulated/`.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hounsfield.judge import metrics
from hounsfield.judge.answers import ALPHA
from hounsfield.judge.jackknife import components, contrast, level
from hounsfield.judge.metrics import Measured
from hounsfield.judge.power import pilot
from hounsfield.judge.questions import Question, folds_felt, questions
from hounsfield.judge.view import of_repeats, patient_df
from hounsfield.seeding import stream
from simulated import fixed, folds

Floats = NDArray[np.float64]
Study = tuple[Measured, Floats]  # what was measured, and the arms' true AUC (fractions,)

FIXED = ((16, 0.80), (50, 0.80), (80, 0.80), (16, 0.95))  # patients, AUC at the small fraction
PATIENTS = (16, 50, 80)
FEATURES = {8: "", 30: "_hard"}  # that a model must weigh
QUARTER, TENTH = (1.0, 0.25), (1.0, 0.1)  # fractions
FOLDS = (
    *((5, count, features, QUARTER) for features in FEATURES for count in PATIENTS),
    *((3, 50, features, TENTH) for features in FEATURES),
)  # folds, patients, features, fractions
REPEATS = (5, 3, 2)
FOUND = stats.norm.ppf(0.975) + stats.norm.ppf(0.80)  # standard errors


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
            made = fixed_studies(options.seed, options.studies, patients, auc)
            suffix = "" if auc == 0.80 else f"_auc_{100 * auc:.0f}"
            show(made, fixed.FRACTIONS, 1, f"{patients}_patients{suffix}")
    if options.only != "fixed":
        for n_folds, patients, features, fractions in FOLDS:
            world = n_folds, patients, features, fractions
            made = fold_studies(options.seed, options.studies, *world)
            suffix = f"{patients}_patients_{n_folds}_folds{FEATURES[features]}"
            show(made, fractions, n_folds, suffix)


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


def fixed_studies(seed: int, studies: int, patients: int, auc: float) -> Iterator[Study]:
    """Studies on a fixed test set."""
    for number in range(studies):
        rng = stream(seed, "fixed", patients, str(auc), number)
        yield metrics.auc(*fixed.study(rng, patients, auc)), np.array(fixed.TRUE_AUC[auc])


def fold_studies(
    seed: int,
    studies: int,
    n_folds: int,
    patients: int,
    features: int,
    fractions: tuple[float, ...],
) -> Iterator[Study]:
    """Cross-validated studies."""
    for number in range(studies):
        rng = stream(seed, "folds", n_folds, patients, features, number)
        made = folds.study(rng, patients, features, n_folds=n_folds, fractions=fractions)
        yield metrics.auc(made.logits, made.truth), made.true.mean(axis=0)  # the arms are alike


def show(made: Iterable[Study], fractions: tuple[float, ...], n_folds: int, suffix: str) -> None:
    """Print every figure of these studies; what is true of an arm is its mean over them."""
    asked = questions(("one", "other"), fractions)
    seen: dict[int, list[Floats]] = {repeats: [] for repeats in REPEATS}
    truths = []
    for measured, true in made:
        truths.append(true)
        for repeats in REPEATS:
            some = of_repeats(measured, np.arange(max(REPEATS)) < repeats)
            seen[repeats].append(answered(some, asked, n_folds))
    arms_true = np.mean(truths, axis=0)
    for repeats in REPEATS:
        figures: dict[str, list[float]] = {}
        for question, found in zip(asked, np.swapaxes(seen[repeats], 0, 1), strict=True):
            true = (question.weights @ arms_true).sum()
            for name, share in shares(question, found, true, repeats):
                full = "_full" if question.fraction == fractions[0] else ""
                figures.setdefault(f"{name}{full}", []).append(share)  # one for each arm
        for name, both in figures.items():
            print(f"{name}_{suffix}_{repeats}_repeats {100 * np.mean(both):.1f}", flush=True)


def answered(measured: Measured, asked: Sequence[Question], n_folds: int) -> Floats:
    """What a study says of each question (questions, 5).

    Estimate, limits, variance over repeats, and p of a difference as if the test set were fixed.
    """
    weights = np.stack([one.weights for one in asked])
    single = np.array([one.single for one in asked])
    felt = np.array([folds_felt(one.kind, n_folds) for one in asked])
    theta = np.tensordot(weights, measured.value, 2)
    without = np.tensordot(weights, measured.without, 2)
    df = np.where(single, measured.scarcest - 1.0, patient_df(measured, weights))
    rows = np.full((len(asked), 5), np.nan)
    rows[:, 0], rows[:, 3] = theta.mean(axis=-1), theta.var(axis=-1, ddof=1)
    for count in np.unique(felt):
        here = ~single & (felt == count)
        found = contrast(theta[here], without[here], df[here], folds=int(count))
        rows[here, 1:3] = np.stack([found.low, found.high], axis=-1)
    rows[~single, 4] = contrast(theta[~single], without[~single], df[~single]).p
    found = level(theta[single], without[single], df[single], floor=measured.floor, folds=n_folds)
    rows[single, 1:3] = np.stack([found.low, found.high], axis=-1)
    return rows


def shares(
    question: Question, found: Floats, true: float, repeats: int
) -> Iterator[tuple[str, float]]:
    """Figures of studies (studies, 5), rows of `answered`; those without an interval left out."""
    estimate, low, high, unrest, plain = found[~np.isnan(found[:, 1])].T
    held = (low <= true) & (true <= high)
    if question.baseline is None:
        yield f"coverage_{question.kind}", held.mean()
        return
    yield f"type1_{question.kind}", 1 - held.mean()
    yield f"type1_calm_{question.kind}", 1 - held[unrest <= np.quantile(unrest, 0.25)].mean()
    apart = FOUND * estimate.std()
    yield f"power_{question.kind}", np.mean([low > -apart, high < apart])
    if question.kind == "difference":
        limit = stats.t.ppf(1 - ALPHA / 2, repeats - 1) ** 2
        yield "type1_naive_t", (estimate**2 * repeats > limit * unrest).mean()
        yield "type1_as_if_fixed", (plain < ALPHA).mean()


if __name__ == "__main__":
    main()
