"""Axes, pictures and CSV of a chart: numbers in, the same numbers out."""

from __future__ import annotations

import csv
import io
import json
import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from s3t_ray.report.cell_text import cell_text, seconds_text
from s3t_ray.report.chart_scale import Axis, ticks, x_axis, y_axis
from s3t_ray.report.csv_table import chart_csv, table_csv
from s3t_ray.report.page_model import (
    ChartMark,
    ChartSeries,
    ReportChart,
    ReportPage,
    ReportSection,
    ReportTable,
    thinned_to,
)
from s3t_ray.report.svg_chart import points_json, svg_chart

EVIL = "</script><img src=x onerror=alert(1)>\"'&"


def chart(*series: ChartSeries, **changes: object) -> ReportChart:
    fields: dict[str, object] = {"stem": "a-chart", "title": "t", "x_label": "x", "y_label": "y", "series": series}
    return ReportChart.model_validate({**fields, **changes})


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e9), st.integers(4, 12))
def test_ticks_are_round_inside_and_not_too_many(low: float, span: float, most: int) -> None:
    found = [value for value, _ in ticks(Axis(low, low + span, 0, 100), most)]
    assert 0 < len(found) <= most + 1
    slack = 1e-6 * span
    assert all(low - slack <= value <= low + span + slack for value in found)
    if len(found) > 1:
        steps = {round((b - a) / (found[1] - found[0]), 3) for a, b in pairwise(found)}
        assert steps == {1.0}
        digits = (found[1] - found[0]) / 10 ** math.floor(math.log10((found[1] - found[0]) * 1.0001))
        assert min(abs(digits - round_) for round_ in (1, 2, 5, 10)) < 0.01


def test_a_logarithmic_axis_is_even_in_powers() -> None:
    axis = Axis(1, 100, 0, 100, log=True)
    assert [round(axis.place(value)) for value in (1, 10, 100)] == [0, 50, 100]
    assert [text for _, text in ticks(axis, 8)] == ["1", "2", "5", "10", "20", "50", "100"]
    with pytest.raises(ValidationError, match="above 0"):
        chart(ChartSeries(name="a", x=(0, 1), y=(1, 1)), x_kind="log")


def test_axes_take_in_bounds_marks_and_zero() -> None:
    found = chart(
        ChartSeries(name="a", x=(1, 2), y=(5, 6), low=(4, 5), high=(6, 9)),
        from_zero=True,
        marks=(ChartMark(x=7, label="m"),),
    )
    across, up = x_axis(found, 0, 10), y_axis(found, 100, 0)
    assert (across.low, across.high) == (1, 7)
    assert up.low == 0 and up.high >= 9
    assert up.place(0) == 100


def test_one_point_and_equal_values_can_be_drawn() -> None:
    for kind in ("number", "seconds", "log"):
        picture = svg_chart(chart(ChartSeries(name="a", x=(3,), y=(2,)), x_kind=kind))
        assert "nan" not in picture and "inf" not in picture
        ElementTree.fromstring(picture)


def test_the_picture_is_well_formed_and_escapes_what_people_wrote() -> None:
    found = chart(
        ChartSeries(name=EVIL, x=(1, 2), y=(1, 2)),
        title=EVIL,
        x_label=EVIL,
        y_label=EVIL,
        marks=(ChartMark(x=1, label=EVIL),),
    )
    root = ElementTree.fromstring(svg_chart(found))
    assert not [node for node in root.iter() if node.tag.endswith(("img", "script"))]
    assert "<" not in points_json(found)
    assert json.loads(points_json(found))["names"] == [EVIL]


def test_pointer_and_keys_find_each_series_value() -> None:
    steps = ChartSeries(name="steps", x=(0, 10), y=(1, 2), style="steps")
    line = ChartSeries(name="line", x=(5, 10), y=(7, 8), low=(6, 7), high=(8, 9))
    found = json.loads(points_json(chart(steps, line)))
    assert found["at"] == ["x: 0", "x: 5", "x: 10"]
    assert found["rows"] == [["1", None], ["1", "7 (6 to 8)"], ["2", "8 (7 to 9)"]]
    assert found["x"] == sorted(found["x"])


def test_few_bounds_are_bars_and_many_a_band() -> None:
    few, many = (
        ChartSeries(name="a", x=tuple(range(n)), y=(1.0,) * n, low=(0.5,) * n, high=(2.0,) * n) for n in (3, 30)
    )
    assert svg_chart(chart(few)).count('class="bar') == 3
    assert svg_chart(chart(many)).count('class="band') == 1


def test_csv_has_the_exact_numbers_and_no_formula() -> None:
    found = chart(ChartSeries(name="=cmd()", x=(1, 2), y=(0.1 + 0.2, 4), low=(0, 0), high=(1, 5)))
    rows = list(csv.reader(io.StringIO(chart_csv(found))))
    assert rows[0] == ["series", "x", "y", "low", "high"]
    assert rows[1] == ["'=cmd()", "1.0", "0.30000000000000004", "0.0", "1.0"]
    table = ReportTable(stem="a", title="t", columns=("a", "b"), rows=(('say "x", y', None), (-1, 2.5)))
    assert list(csv.reader(io.StringIO(table_csv(table)))) == [["a", "b"], ['say "x", y', ""], ["-1", "2.5"]]


def test_a_page_refuses_what_cannot_be_drawn_or_distinguished() -> None:
    with pytest.raises(ValidationError, match="one value per point"):
        ChartSeries(name="a", x=(1, 2), y=(1,))
    with pytest.raises(ValidationError, match="no point"):
        chart(ChartSeries(name="a", x=(), y=()))
    with pytest.raises(ValidationError, match="cells"):
        ReportTable(stem="a", title="t", columns=("a",), rows=((1, 2),))
    table = ReportTable(stem="a", title="t", columns=("a",), rows=())
    with pytest.raises(ValidationError, match="'a'"):
        ReportPage(title="", subtitle="", sections=(ReportSection(title="s", tables=(table, table)),))
    with pytest.raises(ValidationError):
        chart(ChartSeries(name="a", x=(1,), y=(1,)), stem="../up")


def test_thinning_keeps_the_ends() -> None:
    assert thinned_to(range(10), 10) == tuple(range(10))
    found = thinned_to(range(100_001), 2_000)
    assert len(found) == 2_000 and found[0] == 0 and found[-1] == 100_000


def test_values_are_written_as_people_read_them() -> None:
    assert [cell_text(value) for value in (52002, 0.123456, None, 3.0, 12345.6, "x", True)] == [
        "52,002", "0.1235", "-", "3", "12,346", "x", "True",
    ]  # fmt: skip
    assert [seconds_text(value) for value in (0, 59.5, 90, 7200, 200000)] == [
        "0 s",
        "59.5 s",
        "1.5 min",
        "2 h",
        "2.31 d",
    ]
