"""Numbers as words: one way to write an interval, a share, a count, everywhere in a report."""

import hashlib
import math
import re
from collections.abc import Sequence

from hounsfield import wording
from hounsfield.judge.answers import decimals
from hounsfield.wording import plural as plural  # a report says its counts as messages do

METRICS = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "average_precision": "average precision",
    "f1": "F1",
    "brier": "Brier score",
    "ece": "expected calibration error",
}
ARMS = {
    "scratch": "Scratch",
    "imagenet": "ImageNet",
    "spark": "SparK",
    "moco_v2": "MoCo v2",
    "byol": "BYOL",
    "swav": "SwAV",
    "histogram": "Histogram (control)",
    "position": "Position (control)",
}
KINDS = {
    "level": "{metric}",
    "difference": "difference in {metric}",
    "drop": "drop in {metric}",
    "drop_difference": "difference of drops",
    "curve_area": "area under the label curve",
    "curve_area_difference": "difference of areas",
    "labels_saved": "labels that the baseline needs",
}
MINUS = "\N{MINUS SIGN}"  # as wide as a plus, unlike a hyphen
DASH = "\N{EN DASH}"
HARD = "\N{NO-BREAK SPACE}"
NARROW = "\N{NARROW NO-BREAK SPACE}"


def arm_name(arm: str) -> str:
    """The name that papers use, or the arm's own."""
    return ARMS.get(arm, arm)


def metric_name(metric: str) -> str:
    """A metric's name inside a sentence."""
    return METRICS.get(metric, metric.replace("_", " "))


def kind_name(kind: str, metric: str) -> str:
    """What a kind of number is called above a column."""
    return KINDS.get(kind, kind.replace("_", " ")).format(metric=metric_name(metric))


def percent(fraction: float) -> str:
    """`0.25` as `25 %`, with a narrow space."""
    return wording.percent(fraction).replace(" ", NARROW)


def number(value: float | None, *, digits: int = 3, signed: bool = False) -> str:
    """A value with a true minus sign; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def interval(
    estimate: float | None, low: float | None, high: float | None, *, signed: bool = False
) -> str:
    """`0.812 [0.701, 0.889]`; the estimate alone where no interval holds."""
    text = number(estimate, signed=signed)
    if low is None or high is None:
        return text
    return f"{text} [{number(low, signed=signed)},{HARD}{number(high, signed=signed)}]"


def p_value(p: float | None) -> str:
    """`0.043`, `0.0497` (below 0.05), `< 0.001`, or a dash."""
    if p is None or not math.isfinite(p):
        return DASH
    return f"<{NARROW}0.001" if p < 0.001 else f"{p:.{decimals(p)}f}"


def span(values: Sequence[int]) -> str:
    """`12` where all agree, `11-14` where not, with an en dash."""
    if not values:
        return DASH
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}{DASH}{high:,}"


def spanned(values: Sequence[int], one: str) -> str:
    """`1 patient`, `12 patients`, `11-14 patients`."""
    return f"{span(values)} {one if set(values) == {1} else one + 's'}"


def slug(*parts: str) -> str:
    """A name for files and anchors: letters, digits, hyphens; a digest where signs were lost."""
    text = "-".join(parts)
    plain = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()
    if plain == text.lower().replace("_", "-"):
        return plain
    return f"{plain[:60]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}".lstrip("-")


def sentence(text: str) -> str:
    """`text` with a capital, as kNN has one already; the rest is left as it is."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def signs(text: str) -> str:
    """`text` with true minus signs before numbers, and a narrow space before per cent."""
    return re.sub(r"(?<=\d) ?%", f"{NARROW}%", re.sub(r"(?<![\w-])-(?=\d)", MINUS, text))


def finished(text: str) -> str:
    """`text` with a full stop, unless it ends with one."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def duration(seconds: float | None) -> str:
    """`48 s`, `12 min`, `3.2 h`, or a dash."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
