"""The figures of docs/concepts.md, drawn from the code that they explain."""

from hounsfield.data.split import ladder as nested
from hounsfield.data.window import WINDOWS
from hounsfield.seeding import stream
from hounsfield.wording import percent

INK, PALE, BLUE, ORANGE = "#333", "#d5d5d5", "#3b6fb6", "#d9730d"
TISSUES = {  # HU, and the line on which the name stands
    "air": (-1000, 0),
    "lung": (-800, 1),
    "fat": (-100, 0),
    "water": (0, 1),
    "blood": (65, 2),
    "dense bone": (1000, 0),
}
SHOWN = ("wide", "lung", "bone", "soft", "brain")
FRACTIONS = (1.0, 0.5, 0.25)
PATIENTS, WITH_A_BLEED = 16, 6


def windows() -> str:
    """Windows as bars over the scale of Hounsfield units."""

    def x(hu: float) -> float:
        return round(110 + (hu + 1400) * 0.2, 1)

    parts = []
    for row, name in enumerate(SHOWN):
        low, high, y = WINDOWS[name].low, WINDOWS[name].high, 20 + 26 * row
        width = round(x(high) - x(low), 1)
        parts.append(_text(100, y + 12, name, anchor="end"))
        parts.append(f'<rect x="{x(low)}" y="{y}" width="{width}" height="16" fill="{BLUE}"/>')
        parts.append(_text(x(high) + 6, y + 12, f"{low:g} to {high:g}"))
    axis = 20 + 26 * len(SHOWN)
    parts.append(f'<path d="M{x(-1400)} {axis}H{x(1400)}" stroke="{INK}"/>')
    for name, (hu, line) in TISSUES.items():
        y = axis + 20 + 16 * line
        parts.append(f'<path d="M{x(hu)} 14V{y - 10}" stroke="{PALE}" stroke-dasharray="2 3"/>')
        parts.append(_text(x(hu), y, f"{name} {hu}", anchor="middle"))
    return _svg(740, axis + 60, parts, "Windows over the scale of Hounsfield units")


def ladder() -> str:
    """Two ladders over the same patients, as `hounsfield.data.split` draws them."""
    carried = {
        f"{patient:02}": frozenset({0, 1} if patient < WITH_A_BLEED else {0})
        for patient in range(PATIENTS)
    }
    parts = []
    for repeat in range(2):
        drawn = nested(carried, FRACTIONS, stream=stream(1, "figure", repeat))
        for row, fraction in enumerate(FRACTIONS):
            y = 24 + 96 * repeat + 24 * row
            parts.append(
                _text(150, y + 4, f"repeat {repeat + 1}, {percent(fraction)}", anchor="end")
            )
            for place, (patient, classes) in enumerate(carried.items()):
                colour = ORANGE if 1 in classes else BLUE
                fill = colour if patient in drawn[fraction] else "none"
                parts.append(
                    f'<circle cx="{180 + 26 * place}" cy="{y}" r="8" fill="{fill}" '
                    f'stroke="{colour if fill != "none" else PALE}"/>'
                )
    return _svg(
        600, 192, parts, "Two ladders of training patients; each rung lies in the one above"
    )


def _text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{words}</text>'


def _svg(width: int, height: int, parts: list[str], title: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12" fill="{INK}" role="img">'
    )
    return "\n".join([head, f"<title>{title}</title>", *parts, "</svg>\n"])
