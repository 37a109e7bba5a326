"""Many comparisons against one question: Holm's step-down adjustment (Holm 1979)."""

from collections.abc import Sequence

import numpy as np


def holm(p: Sequence[float | None]) -> list[float]:
    """Adjusted p-values of a family, in the same order.

    A comparison without a p (too few patients, degenerate) stays in the family with p = 1.
    """
    raw = np.array([1.0 if one is None else one for one in p])
    order = np.argsort(raw, kind="stable")
    factors = np.arange(len(raw), 0, -1)
    adjusted = np.empty(len(raw))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * raw[order]), 1.0)
    return [float(one) for one in adjusted]
