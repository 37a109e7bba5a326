"""How an arm looks: a colour, a dash and a marker, so that it reads in grey and without colour.

The colours are Okabe and Ito's ("Color Universal Design", 2008), darkened where they would not
stand out on white by 3 to 1, the least that WCAG 2.1 asks of graphics (1.4.11).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hounsfield.report.study_folder import CONTROLS


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
        return _OUTLINES[self.shape]


_OUTLINES = {
    "circle": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0Z",
    "square": "M-4-4H4V4H-4Z",
    "triangle-up": "M0-5L5 4H-5Z",
    "triangle-down": "M0 5L5-4H-5Z",
    "triangle-right": "M5 0L-4 5V-5Z",
    "triangle-left": "M-5 0L4 5V-5Z",
    "diamond": "M0-5.5L5 0L0 5.5L-5 0Z",
    "cross": "M-1.7-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z",
    "stroke": "M-5-1H5V1H-5Z",
    "wedge": "M0-5L2.5 5H-2.5Z",
}
LOOKS = (
    Look("#6b6f76", "#a9aeb6", (), "circle"),
    Look("#0072b2", "#56b4e9", (), "square"),
    Look("#c44f00", "#ff9d4d", (6, 2), "triangle-up"),
    Look("#00805a", "#2fc79a", (2, 2), "diamond"),
    Look("#a8497f", "#e39ac4", (8, 2, 2, 2), "cross"),
    Look("#8a6d00", "#e6cf3c", (10, 4), "triangle-down"),
    Look("#4a4e9e", "#a6abff", (4, 2, 1, 2), "triangle-right"),
    Look("#8b1e1e", "#ff8f8f", (1, 2), "triangle-left"),
)
CONTROL_LOOKS = (
    Look("#7d7d7d", "#8f8f8f", (3, 3), "stroke"),
    Look("#7d7d7d", "#8f8f8f", (1, 3), "wedge"),
)


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """The look of every arm: by its place among the learning arms, so that it never moves."""
    learning = [arm for arm in arms if arm not in CONTROLS]
    controls = [arm for arm in arms if arm in CONTROLS]
    return {
        **{arm: LOOKS[place % len(LOOKS)] for place, arm in enumerate(learning)},
        **{arm: CONTROL_LOOKS[CONTROLS.index(arm)] for arm in controls},
    }
