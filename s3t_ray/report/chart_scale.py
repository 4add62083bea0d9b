"""Chart axes: round ticks, and the position of a value. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from s3t_ray.report.cell_text import number_text, seconds_text
from s3t_ray.report.page_model import ReportChart

_SECONDS_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True)
class Axis:
    """Maps the values `low`..`high` to the positions `start`..`end`; `log`: on a logarithmic scale."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)


def x_axis(chart: ReportChart, start: float, end: float) -> Axis:
    """The x axis from `start` (the left) to `end`; it includes the marks."""
    values = [x for each in chart.series for x in each.x] + [mark.x for mark in chart.marks]
    low, high = min(values), max(values)
    if low == high:
        low, high = (low / 2, high * 2) if chart.x_kind == "log" else (low - 0.5, high + 0.5)
    return Axis(low, high, start, end, chart.x_kind == "log")


def y_axis(chart: ReportChart, start: float, end: float) -> Axis:
    """The y axis from `start` (the bottom) to `end`. The range includes error bounds and has some margin."""
    values = [y for each in chart.series for y in (*each.y, *each.low, *each.high)]
    low, high = min(values), max(values)
    if chart.from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    span = (high - low) or abs(high) or 1.0
    low = low if chart.from_zero and low == 0.0 else low - 0.06 * span
    return Axis(low, high + 0.06 * span, start, end)


def ticks(axis: Axis, most: int, of_seconds: bool = False) -> list[tuple[float, str]]:
    """Round values on the axis, about `most` at most, each with its text."""
    if axis.log:
        return _log_ticks(axis)
    step = _step((axis.high - axis.low) / most, of_seconds)
    first = math.ceil(axis.low / step - 1e-9)
    values = [number * step for number in range(first, math.floor(axis.high / step + 1e-9) + 1)]
    return [(value, seconds_text(value) if of_seconds else number_text(_cleaned(value, step))) for value in values]


def _step(least: float, of_seconds: bool) -> float:
    if of_seconds and least <= _SECONDS_STEPS[-1]:
        return next(step for step in _SECONDS_STEPS if step >= least)
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _cleaned(value: float, step: float) -> float:
    """`value` without floating-point noise in its last digits."""
    return round(value, max(0, -math.floor(math.log10(step)) + 1))


def _log_ticks(axis: Axis) -> list[tuple[float, str]]:
    powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
    factors: Sequence[int] = (1, 2, 5) if len(powers) <= 4 else (1,)
    values = [factor * 10.0**power for power in powers for factor in factors]
    return [(value, number_text(value)) for value in values if axis.low <= value <= axis.high * (1 + 1e-9)]
