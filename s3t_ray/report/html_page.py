"""Renders a page as one HTML file with inline styles, charts and script, and a policy against loading anything else.

In: a `ReportPage`. Out: HTML. Pure. All text is escaped. The content security policy allows only the one script, by its
hash, so that text from users cannot run even if escaping failed.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib.resources import files

from s3t_ray.report.cell_text import cell_text
from s3t_ray.report.page_model import Cell, ReportChart, ReportPage, ReportSection, ReportTable
from s3t_ray.report.svg_chart import legend_key, points_json, svg_chart


def html_page(page: ReportPage) -> str:
    """The HTML file. Charts and tables link to `STEM.csv` in the same folder."""
    assets = files("s3t_ray.report") / "assets"
    style = (assets / "report.css").read_text(encoding="utf-8")
    script = (assets / "report.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    contents = "".join(f'<li><a href="#s{at}">{escape(each.title)}</a></li>' for at, each in enumerate(page.sections))
    sections = "\n".join(_section(section, at) for at, section in enumerate(page.sections))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="content-security-policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(page.title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to content</a>
<header><h1>{escape(page.title)}</h1><p class="hint">{escape(page.subtitle)}</p>
<nav aria-label="Sections"><ul>{contents}</ul></nav></header>
<main id="main" tabindex="-1">
{sections}
</main>
<div id="tip" role="status" aria-live="polite" hidden></div>
<script>{script}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _section(section: ReportSection, at: int) -> str:
    parts = [f'<section aria-labelledby="s{at}"><h2 id="s{at}">{escape(section.title)}</h2>']
    parts += [f"<p>{escape(text)}</p>" for text in section.text]
    if section.facts:
        rows = "".join(f"<dt>{escape(fact.name)}</dt><dd>{_cell(fact.value)}</dd>" for fact in section.facts)
        parts.append(f'<dl class="card facts">{rows}</dl>')
    parts += [_chart(chart) for chart in section.charts]
    parts += [_table(table) for table in section.tables]
    return "".join((*parts, "</section>"))


def _chart(chart: ReportChart) -> str:
    legend = "".join(
        f'<li><svg class="key" viewBox="0 0 28 8" aria-hidden="true">{legend_key(series, at)}</svg>'
        f"{escape(series.name)}</li>"
        for at, series in enumerate(chart.series)
    )
    return (
        f'<figure class="card chart" id="{chart.stem}">'
        f"<figcaption><strong>{escape(chart.title)}</strong>{_csv(chart.stem)}"
        f'<ul class="legend">{legend}</ul></figcaption><div class="picture">{svg_chart(chart)}</div>'
        f'<script type="application/json">{points_json(chart)}</script>{_caption(chart.caption)}</figure>'
    )


def _table(table: ReportTable) -> str:
    numeric = [
        all(isinstance(row[at], (int, float)) or row[at] is None for row in table.rows)
        for at in range(len(table.columns))
    ]
    kinds = [' class="number"' if each else "" for each in numeric]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for kind, name in zip(kinds, table.columns, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{_cell(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="card"><p class="title"><strong id="{table.stem}">{escape(table.title)}</strong>'
        f"{_csv(table.stem)}</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{table.stem}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{_caption(table.caption)}</div>"
    )


def _csv(stem: str) -> str:
    return f'<a class="csv" href="{stem}.csv" download>CSV<span class="hidden"> of {stem}</span></a>'


def _caption(text: str) -> str:
    return f'<p class="hint">{escape(text)}</p>' if text else ""


def _cell(value: Cell) -> str:
    return escape(cell_text(value))
