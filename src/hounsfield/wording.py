"""Counts and shares in words, written one way everywhere: `1 patient`, `2 patients`, `50 %`."""


def plural(count: int, one: str, many: str = "") -> str:
    """`1 patient`, `2 patients`, `1,200 images`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def percent(fraction: float) -> str:
    """`0.25` as `25 %`."""
    return f"{fraction * 100:.3g} %"
