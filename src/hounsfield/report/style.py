"""How every figure is drawn: on the page with the page's own colours, in files with fixed ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hounsfield.report.palette import looks

FONT = "system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"
FILE_FONT = "Liberation Sans, Arial, sans-serif"


@dataclass(frozen=True)
class Style:
    """Colours, fonts and sizes of a figure.

    Attributes:
        colours: By arm.
        ink, soft, line, paper: Text, quiet text, grid lines, background.
        font: A CSS font list.
        on_page: Whether the page brings the legend, and the width of the figure.
    """

    colours: Mapping[str, str]
    ink: str
    soft: str
    line: str
    paper: str
    font: str
    on_page: bool

    def config(self) -> dict[str, Any]:
        """The Vega-Lite configuration of every figure."""
        text = {"labelFont": self.font, "titleFont": self.font}
        return {
            "background": None if self.on_page else self.paper,
            "font": self.font,
            "view": {"stroke": None},
            "axis": {
                **text,
                "labelColor": self.soft,
                "titleColor": self.ink,
                "labelFontSize": 12,
                "titleFontSize": 12,
                "titleFontWeight": 500,
                "titlePadding": 8,
                "labelPadding": 6,
                "domainColor": self.line,
                "tickColor": self.line,
                "gridColor": self.line,
                "gridOpacity": 0.7,
            },
            "legend": {
                **text,
                "labelColor": self.ink,
                "titleColor": self.ink,
                "labelFontSize": 12,
                "titleFontSize": 12,
                "symbolSize": 90,
                "symbolStrokeWidth": 2,
                "orient": "bottom",
            },
            "header": {**text, "labelColor": self.ink, "titleColor": self.ink},
            "title": {
                "font": self.font,
                "color": self.ink,
                "fontSize": 13,
                "fontWeight": 600,
                "anchor": "start",
            },
            "text": {"font": self.font, "color": self.soft},
        }


def page_style(arms: Sequence[str]) -> Style:
    """Colours are the page's CSS variables: light, dark and print need no second drawing."""
    colours = {arm: f"var(--arm-{place})" for place, arm in enumerate(arms)}
    return Style(
        colours, "var(--ink)", "var(--soft)", "var(--line)", "var(--paper)", FONT, on_page=True
    )


def file_style(arms: Sequence[str]) -> Style:
    """Colours for paper."""
    colours = {arm: look.light for arm, look in looks(arms).items()}
    return Style(colours, "#1d2127", "#4d545e", "#d9dce1", "#ffffff", FILE_FONT, on_page=False)
