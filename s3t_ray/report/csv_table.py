"""Writes the data of a chart or a table as CSV: exact, with a header, and safe to open in a spreadsheet. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from s3t_ray.report.page_model import Cell, ReportChart, ReportTable

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def chart_csv(chart: ReportChart) -> str:
    """One row per point, series after series. The last two cells are empty if a series has no bounds."""
    rows = [
        (series.name, x, y, series.low[at] if series.low else None, series.high[at] if series.high else None)
        for series in chart.series
        for at, (x, y) in enumerate(zip(series.x, series.y, strict=True))
    ]
    return _csv(("series", chart.x_label, chart.y_label, "low", "high"), rows)


def table_csv(table: ReportTable) -> str:
    """The CSV text of a table."""
    return _csv(table.columns, table.rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_safe(name) for name in header])
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    return text.getvalue()


def _safe(cell: Cell) -> Cell:
    """Quote text that a spreadsheet would evaluate as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
