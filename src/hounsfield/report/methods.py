"""`methods.md`: what was done, in words for the paper, and the reporting checklist."""

import re
from collections.abc import Sequence

from hounsfield.report import words
from hounsfield.report.checklist import AUTHOR, checklist
from hounsfield.report.drawing import Figure
from hounsfield.report.parts.answer import answer
from hounsfield.report.parts.limits import limits
from hounsfield.report.parts.protocol import sentences
from hounsfield.report.study_folder import Study

STATISTICS = (
    "Intervals are 95 % and unadjusted. They come from a two-way crossed jackknife t "
    "(Obuchowski-Rockette analysis with training repeats in the place of readers and patients as "
    "cases; delete-one-patient covariance; a variance over repeats that is never taken for less "
    "than what repeats and patients vary by together; Satterthwaite degrees of freedom that also "
    "count the patients), so they cover both which patients were tested and how trainings vary; "
    "single values are bounded on the logit scale. P-values are of paired differences and "
    "adjusted by Holm within the declared family. Where too few patients carry a class, no "
    "interval is given. Intervals hold conditionally on this pool of training patients."
)
FOLDED = (
    "Because folds share patients between training and test, the variances of levels and of their "
    "differences are enlarged by 1 / (folds - 1), after Nadeau and Bengio (2003); drops, whose two "
    "ends share the folds, are spared."
)


def methods(study: Study, figures: Sequence[Figure]) -> str:
    """The file as Markdown."""
    parts = [
        "# Methods and reporting checklist",
        "Written by hounsfield from what the study stored. Check every sentence before you use "
        "it: what the tool cannot know is left for the author by name.",
        "## Methods",
        " ".join(map(plain, sentences(study))),
        f"{STATISTICS} {FOLDED}" if study.folds > 1 else STATISTICS,
        "## Result",
        " ".join(map(plain, answer(study))),
        "## Limits",
        "\n".join(f"- {plain(one)}" for one in limits(study)) or "None were found by the tool.",
        "## Checklist",
        "A tick: filled from the study. No tick: the author must write it, or the rest of it.",
        "\n".join(_item(number, *entry) for number, entry in enumerate(checklist(study), start=1)),
        "## Figures",
        "\n".join(
            f"- `figures/{one.name}`: {plain(one.title)}. {plain(one.caption)}" for one in figures
        )
        or "None: nothing was judged yet.",
    ]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """`text` so that Markdown shows it as it is."""
    escaped = re.sub(r"([\\`*_<>|#])", r"\\\1", " ".join(text.split()))
    return escaped.replace("](", "]\\(")


def _item(number: int, name: str, told: str) -> str:
    if not told:
        return f"- [ ] **{number}. {name}.** For the author."
    tick = " " if AUTHOR in told else "x"
    return f"- [{tick}] **{number}. {name}.** {plain(words.finished(told))}"
