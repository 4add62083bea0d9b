"""Formats values for a report: readable numbers, and times with their unit. Pure."""

from __future__ import annotations

from s3t_ray.report.page_model import Cell

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def cell_text(value: Cell) -> str:
    """52002 -> "52,002"; 0.123456 -> "0.1235"; None -> "-"; text is unchanged."""
    match value:
        case None:
            return "-"
        case bool() | str():
            return str(value)
        case int():
            return f"{value:,}"
        case float():
            return number_text(value)


def number_text(value: float) -> str:
    """The number with four significant digits, without an exponent where possible."""
    if value == round(value) and abs(value) < 1e15:
        return f"{round(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def seconds_text(seconds: float) -> str:
    """90 -> "1.5 min"."""
    for size, name in _UNITS:
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"
