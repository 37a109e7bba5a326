"""What all figures share: their size, their colours, and the one arm that may be isolated."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from hounsfield.report import words
from hounsfield.report.palette import looks
from hounsfield.report.style import Style

HEIGHT = 300
FILE_WIDTH = 420  # pixels at 72 to the inch: a column of a journal
# The version whose specifications Altair writes, as vl-convert names it: "6.4" of "v6.4.1".
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
DIMMED = 0.07
ROWS = alt.NamedData("rows")  # filled by `finish`: Altair copies and checks data slowly


@dataclass(frozen=True)
class Figure:
    """A drawing: a name for its files, a title and a sentence, and a Vega-Lite specification.

    Attributes:
        name: Unique on the page; letters, digits and hyphens.
        title, caption: What stands above it.
        spec: A Vega-Lite specification without `$schema`.
        wide: Whether it takes a whole row of the page.
    """

    name: str
    title: str
    caption: str
    spec: dict[str, Any]
    wide: bool = False


def finish(
    chart: Any,
    style: Style,
    *,
    says: str,
    data: Sequence[dict[str, Any]],
    height: int = HEIGHT,
    parameters: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """The chart's specification, sized, described, and with what the page may set.

    Args:
        chart: An Altair chart or a layer of charts over `ROWS`.
        style: Colours and sizes.
        says: What the figure shows, for those who cannot see it.
        data: The rows.
        height: Of the plot with its axes, in pixels.
        parameters: Name and first value of what the page may set beside the isolated arm.
    """
    chart = chart.properties(
        width="container" if style.on_page else FILE_WIDTH,
        height=height,
        autosize=alt.AutoSizeParams(type="fit", contains="padding"),
        description=says,
    )
    for name, value in (("isolated", ""), *parameters):
        chart = chart.add_params(alt.param(name=name, value=value))
    spec = chart.to_dict()
    del spec["$schema"]  # an address that nobody shall ask
    datasets = {**spec.get("datasets", {}), ROWS.name: list(data)}
    return {**spec, "datasets": datasets, "config": style.config()}


def constant(**values: Any) -> alt.InlineData:
    """A single row as the data of a line or a word that does not come from the study."""
    return alt.InlineData(values=[values])


def isolated(opacity: float) -> Any:
    """`opacity`, but nearly nothing while another arm is isolated."""
    mine = "isolated == '' || datum.arm == isolated"
    return alt.condition(mine, alt.value(opacity), alt.value(min(DIMMED, opacity / 4)))


def by_colour(arms: Sequence[str], style: Style, *, shape: str = "symbol") -> alt.Color:
    """The colour of the field `arm`; `shape` is what the legend shows, `symbol` or `stroke`."""
    scale = alt.Scale(domain=_named(arms), range=[style.colours[arm] for arm in arms])
    return alt.Color("arm:N", title=None, scale=scale, legend=_legend(style, shape))


def by_shape(arms: Sequence[str], style: Style) -> alt.Shape:
    """The marker of the field `arm`."""
    scale = alt.Scale(domain=_named(arms), range=[looks(arms)[arm].shape for arm in arms])
    return alt.Shape("arm:N", title=None, scale=scale, legend=_legend(style, "symbol"))


def by_dash(arms: Sequence[str], style: Style, *, shape: str = "symbol") -> alt.StrokeDash:
    """The dashes of the field `arm`; `shape` as in `by_colour`."""
    dashes = [list(looks(arms)[arm].dash) or [1, 0] for arm in arms]
    scale = alt.Scale(domain=_named(arms), range=dashes)
    return alt.StrokeDash("arm:N", title=None, scale=scale, legend=_legend(style, shape))


def _named(arms: Sequence[str]) -> list[str]:
    return [words.arm_name(arm) for arm in arms]


def _legend(style: Style, shape: str) -> Any:
    """The page brings its own legend, of buttons; a file needs one inside."""
    if style.on_page:
        return None
    if shape == "stroke":  # long enough for a dash to be seen
        return alt.Legend(title=None, columns=4, symbolType="stroke", symbolSize=1600)
    # Without an edge, which would take the line's dashes and fray.
    return alt.Legend(title=None, columns=4, symbolOpacity=1, symbolStrokeWidth=0)
