"""How an arm looks: a colour, a dash and a marker, so that it reads in grey and without colour.

The colours are Okabe and Ito's ("Color Universal Design", 2008), darkened where they would not
stand out on white by 3 to 1, the least that WCAG 2.1 asks of graphics (1.4.11).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hounsfield.judge.declared import CONTROLS


@dataclass(frozen=True)
class Look:
    """A colour on light and on dark, a dash pattern in pixels, a Vega marker."""

    light: str
    dark: str
    dash: tuple[int, ...]
    shape: str

    @property
    def outline(self) -> str:
        """The marker as an SVG path around the origin, for the legend of the page."""
        return _OUTLINES.get(self.shape, self.shape)


# Vega knows shapes by name, or as a path within -1 and 1.
X = "M-1,-.65L-.65,-1L0,-.35L.65,-1L1,-.65L.35,0L1,.65L.65,1L0,.35L-.65,1L-1,.65L-.35,0Z"
HOURGLASS = "M-.8,-1L.8,-1L-.8,1L.8,1Z"
_OUTLINES = {
    "circle": "M-.9,0A.9,.9,0,1,0,.9,0A.9,.9,0,1,0,-.9,0Z",
    "square": "M-.8,-.8L.8,-.8L.8,.8L-.8,.8Z",
    "triangle-up": "M0,-1L1,.8L-1,.8Z",
    "triangle-down": "M0,1L1,-.8L-1,-.8Z",
    "triangle-right": "M1,0L-.8,1L-.8,-1Z",
    "triangle-left": "M-1,0L.8,1L.8,-1Z",
    "diamond": "M0,-1.1L1,0L0,1.1L-1,0Z",
    "cross": "M-.34,-1L.34,-1L.34,-.34L1,-.34L1,.34L.34,.34L.34,1L-.34,1L-.34,.34L-1,.34L-1,-.34L-.34,-.34Z",  # noqa: E501
}
LOOKS = (
    Look("#6b6f76", "#a9aeb6", (), "circle"),
    Look("#0072b2", "#56b4e9", (12, 3), "square"),
    Look("#c44f00", "#ff9d4d", (5, 3), "triangle-up"),
    Look("#00805a", "#2fc79a", (2, 2), "diamond"),
    Look("#a8497f", "#e39ac4", (8, 2, 2, 2), "cross"),
    Look("#8a6d00", "#e6cf3c", (12, 2, 2, 2, 2, 2), "triangle-down"),
    Look("#4a4e9e", "#a6abff", (4, 2, 1, 2), "triangle-right"),
    Look("#8b1e1e", "#ff8f8f", (1, 5), "triangle-left"),
)
CONTROL_LOOKS = (
    Look("#7d7d7d", "#8f8f8f", (3, 3), X),
    Look("#7d7d7d", "#8f8f8f", (1, 3), HOURGLASS),
)


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """The look of every arm: by its place among the learning arms, so that it never moves."""
    learning = [arm for arm in arms if arm not in CONTROLS]
    controls = [arm for arm in arms if arm in CONTROLS]
    return {
        **{arm: LOOKS[place % len(LOOKS)] for place, arm in enumerate(learning)},
        **{arm: CONTROL_LOOKS[CONTROLS.index(arm)] for arm in controls},
    }
