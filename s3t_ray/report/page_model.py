"""The content of a report page: facts, charts and tables as plain numbers, before rendering.

In: facts about a run, or the JSON of an experiment. Out: strict frozen values, which `html_page` renders and
`csv_table` writes. Contains no HTML and reads no files. Text may come from users, so the renderer must escape it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, FiniteFloat, model_validator

from s3t_ray.run.reports import Report

T = TypeVar("T")

MOST_POINTS = 2_000
"""Maximum number of points in a series. Longer ones must be thinned out first."""

FileStem = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,60}$")]
Cell = str | int | FiniteFloat | None


class ChartSeries(Report):
    """One line of a chart. `low` and `high` are the bounds of `y`, drawn as error bars or a band."""

    name: str
    x: tuple[FiniteFloat, ...]
    y: tuple[FiniteFloat, ...]
    low: tuple[FiniteFloat, ...] = ()
    high: tuple[FiniteFloat, ...] = ()
    style: Literal["line", "steps", "points"] = "line"

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        sizes = {len(self.x), len(self.y)} | {len(bound) for bound in (self.low, self.high) if bound}
        if len(sizes) != 1 or bool(self.low) != bool(self.high):
            raise ValueError(f"series {self.name!r}: x, y, low and high must have one value per point")
        if len(self.x) > MOST_POINTS:
            raise ValueError(f"series {self.name!r} has {len(self.x):,} points; at most {MOST_POINTS:,} are drawn")
        return self


class ChartMark(Report):
    """A labelled event at one position on the x axis."""

    x: FiniteFloat
    label: str
    kind: Literal["deletion", "restored", "note"] = "note"


class ReportChart(Report):
    """A chart of one or more series, with optional marks."""

    stem: FileStem
    """Name of the chart's CSV file without its extension; unique on a page."""
    title: str
    x_label: str
    y_label: str
    series: tuple[ChartSeries, ...]
    x_kind: Literal["number", "seconds", "log"] = "number"
    from_zero: bool = False
    """Whether the y axis starts at 0."""
    marks: tuple[ChartMark, ...] = ()
    caption: str = ""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if not any(each.x for each in self.series):
            raise ValueError(f"chart {self.stem!r} has no point")
        if self.x_kind == "log" and any(value <= 0 for each in self.series for value in each.x):
            raise ValueError(f"chart {self.stem!r}: a logarithmic axis requires values above 0")
        return self


class ReportTable(Report):
    """A table; every row has one cell per column."""

    stem: FileStem
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    @model_validator(mode="after")
    def _is_square(self) -> Self:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.stem!r}: a row has {len(row)} cells for {len(self.columns)} columns")
        return self


class ReportFact(Report):
    """A named value."""

    name: str
    value: Cell


class ReportSection(Report):
    """A titled section: paragraphs, facts, charts and tables, in this order."""

    title: str
    text: tuple[str, ...] = ()
    """Paragraphs."""
    facts: tuple[ReportFact, ...] = ()
    charts: tuple[ReportChart, ...] = ()
    tables: tuple[ReportTable, ...] = ()


class ReportPage(Report):
    """A report page. Charts and tables have different stems."""

    title: str
    subtitle: str
    sections: tuple[ReportSection, ...]

    @model_validator(mode="after")
    def _stems_differ(self) -> Self:
        stems = [*(chart.stem for chart in self.charts()), *(table.stem for table in self.tables())]
        if twice := {stem for stem in stems if stems.count(stem) > 1}:
            raise ValueError(f"charts and tables share the name {min(twice)!r}; each needs its own")
        return self

    def charts(self) -> Iterator[ReportChart]:
        return chain.from_iterable(section.charts for section in self.sections)

    def tables(self) -> Iterator[ReportTable]:
        return chain.from_iterable(section.tables for section in self.sections)


def thinned_to(items: Sequence[T], most: int = MOST_POINTS) -> tuple[T, ...]:
    """At most `most` of the items, evenly spaced, including the first and the last."""
    if len(items) <= most:
        return tuple(items)
    step = (len(items) - 1) / (most - 1)
    return tuple(items[round(number * step)] for number in range(most))
