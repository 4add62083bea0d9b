"""Renders a chart as SVG, with the data that a pointer or the arrow keys show.

In: a `ReportChart`. Out: markup without scripts. Colors are CSS classes (`c0`, `c1`, ...), and each has its own dash
pattern, so that lines do not differ by color alone. Also the points as JSON, for `report.js`. Pure; all text is
escaped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from s3t_ray.report.cell_text import number_text, seconds_text
from s3t_ray.report.chart_scale import Axis, ticks, x_axis, y_axis
from s3t_ray.report.page_model import ChartSeries, ReportChart

WIDTH, HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 14, 46
COLORS = 6
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4")
"""One per color. Series beyond the last color reuse the first colors with the next dash."""


def series_class(number: int) -> str:
    """The CSS class that gives a series its color."""
    return f"c{number % COLORS}"


def series_dash(number: int) -> str:
    """The SVG dash pattern of a series."""
    return DASHES[(number + number // COLORS) % len(DASHES)]


def legend_key(series: ChartSeries, number: int) -> str:
    """The symbol of a series in the legend, a line or a dot, in a box of 28 x 8."""
    color, dash = series_class(number), series_dash(number)
    if series.style == "points":
        return f'<circle class="dot {color}" cx="14" cy="4" r="3"/>'
    return f'<path class="line {color}" d="M1 4H27" stroke-dasharray="{dash}"/>'


def svg_chart(chart: ReportChart) -> str:
    """The SVG element. It is focusable and labelled with the chart's title."""
    across, up = _axes(chart)
    parts = [*_grid(chart, across, up), *_marks(chart, across)]
    for number, series in enumerate(chart.series):
        parts += _series(series, number, across, up)
    name = escape(f"{chart.title}: {chart.y_label} against {chart.x_label}. Arrow keys read the points.")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" tabindex="0" role="img" aria-label="{name}">'
        + "".join(parts)
        + f'<line class="cursor" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" visibility="hidden"/></svg>'
    )


def points_json(chart: ReportChart) -> str:
    """`{"x": [...], "at": [...], "rows": [[...], ...]}`: each position on the x axis, its text, and the text of each
    series there. Safe inside a script element."""
    across, _ = _axes(chart)
    places = sorted({x for each in chart.series for x in each.x})
    rows = list(zip(*(_said(each, places) for each in chart.series), strict=True))
    document = {
        "x": [round(across.place(x), 2) for x in places],
        "at": [f"{chart.x_label}: {_x_text(chart, x)}" for x in places],
        "names": [each.name for each in chart.series],
        "rows": rows,
        "marks": [[round(across.place(mark.x), 2), mark.label] for mark in chart.marks],
    }
    return json.dumps(document).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _said(series: ChartSeries, places: Sequence[float]) -> list[str | None]:
    """The text of the series at each position. Step series hold their value; others have text only at their points."""
    texts = {
        x: number_text(y)
        + (f" ({number_text(series.low[at])} to {number_text(series.high[at])})" if series.low else "")
        for at, (x, y) in enumerate(zip(series.x, series.y, strict=True))
    }
    if series.style != "steps":
        return [texts.get(x) for x in places]
    said: list[str | None] = []
    for x in places:
        said.append(texts.get(x, said[-1] if said else None))
    return said


def _axes(chart: ReportChart) -> tuple[Axis, Axis]:
    return x_axis(chart, _LEFT + 6, WIDTH - _RIGHT - 6), y_axis(chart, HEIGHT - _BOTTOM, _TOP)


def _x_text(chart: ReportChart, x: float) -> str:
    return seconds_text(x) if chart.x_kind == "seconds" else number_text(x)


def _grid(chart: ReportChart, across: Axis, up: Axis) -> list[str]:
    parts = []
    for value, text in ticks(up, 6):
        y = up.place(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for value, text in ticks(across, 8, chart.x_kind == "seconds"):
        x = across.place(value)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 17}" text-anchor="middle">{escape(text)}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(chart.x_label)}</text>')
    height = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text x="14" y="{height}" text-anchor="middle" transform="rotate(-90 14 {height})">'
        f"{escape(chart.y_label)}</text>"
    )
    return parts


def _marks(chart: ReportChart, across: Axis) -> list[str]:
    return [
        f'<line class="mark {mark.kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}">'
        f"<title>{escape(mark.label)}</title></line>"
        for mark, x in ((mark, across.place(mark.x)) for mark in chart.marks)
    ]


def _series(series: ChartSeries, number: int, across: Axis, up: Axis) -> list[str]:
    places = [(across.place(x), up.place(y)) for x, y in zip(series.x, series.y, strict=True)]
    color, dash = series_class(number), series_dash(number)
    parts = _bounds(series, color, across, up)
    if series.style != "points" and len(places) > 1:
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<path class="line {color}" d="{_path(series, places)}"{dashed}/>')
    if series.style == "points" or len(places) <= 40:
        parts += [f'<circle class="dot {color}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    return parts


def _path(series: ChartSeries, places: list[tuple[float, float]]) -> str:
    (x, y), *rest = places
    steps = [f"H{x:.1f}V{y:.1f}" if series.style == "steps" else f"L{x:.1f} {y:.1f}" for x, y in rest]
    return f"M{x:.1f} {y:.1f}" + "".join(steps)


def _bounds(series: ChartSeries, color: str, across: Axis, up: Axis) -> list[str]:
    """Error bars if there are few points, otherwise a band."""
    if not series.low:
        return []
    lows = [(across.place(x), up.place(y)) for x, y in zip(series.x, series.low, strict=True)]
    highs = [(across.place(x), up.place(y)) for x, y in zip(series.x, series.high, strict=True)]
    if series.style == "points" or len(lows) <= 12:
        return [
            f'<line class="bar {color}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
            for (x, low), (_, high) in zip(lows, highs, strict=True)
        ]
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*highs, *reversed(lows)))
    return [f'<polygon class="band {color}" points="{corners}"/>']
