"""Saves the results of an experiment: JSON for `s3t report --experiment`, and each chart as an SVG picture.

In: sections with charts and tables. Out: `benchmarks/results/claims/NAME.json`, and `docs/claims/STEM.svg` for each
chart, light or dark as the reader's browser prefers.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path

from s3t_ray.report.experiment_folder import Experiment
from s3t_ray.report.page_model import ChartSeries, ReportChart, ReportSection
from s3t_ray.report.svg_chart import HEIGHT, WIDTH, legend_key, svg_chart

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "claims"
PICTURES = ROOT / "docs" / "claims"
_ROW = 18


def write_experiment(name: str, title: str, sections: tuple[ReportSection, ...], seconds: float) -> Path:
    """Write the result under `name`; `seconds` is the duration of the experiment."""
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    shared = "shared with other work" if load > cores else "not shared"
    experiment = Experiment(
        title=title,
        command=f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(_plain(each) for each in sys.argv[1:])}".strip(),
        measured=f"{datetime.now(UTC):%Y-%m-%d}, {seconds:,.0f} s on {cores} cores, {shared} (load {load:.1f})",
        sections=sections,
    )
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(experiment.model_dump_json(indent=1) + "\n")
    PICTURES.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for chart in section.charts:
            (PICTURES / f"{chart.stem}.svg").write_text(picture(chart) + "\n")
    return path


def line(
    name: str, x: Iterable[float], y: Iterable[float], low: Iterable[float] = (), high: Iterable[float] = ()
) -> ChartSeries:
    """A chart series from sequences of numbers."""
    return ChartSeries(name=name, x=tuple(x), y=tuple(y), low=tuple(low), high=tuple(high))


def picture(chart: ReportChart) -> str:
    """The chart with its legend below, as a standalone SVG file."""
    style = (files("s3t_ray.report") / "assets" / "report.css").read_text(encoding="utf-8")
    legend = "".join(
        f'<g transform="translate(70 {_at(at)})">{legend_key(series, at)}</g>'
        f'<text x="106" y="{_at(at) + 8}">{escape(series.name)}</text>'
        for at, series in enumerate(chart.series)
    )
    height = _at(len(chart.series))
    body = re.sub(r"^<svg [^>]*>|<line class=\"cursor\".*?</svg>$", "", svg_chart(chart))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
        f"<style>{style}</style><title>{escape(chart.title)}</title>"
        f'<rect width="{WIDTH}" height="{height}" fill="var(--card)"/>{body}{legend}</svg>'
    )


def _at(row: int) -> int:
    return HEIGHT + 10 + row * _ROW


def _plain(argument: str) -> str:
    """Shorten a path to its last part, so that results do not name a machine."""
    return Path(argument).name if argument.startswith("/") else argument
