"""Writes a page to disk: report.html, and one CSV per chart and table next to it.

In: a `ReportPage` and a folder that is new, empty, or holds an earlier report. Out: the path of the HTML file. Each
file is replaced atomically, the HTML file last, so readers never see a partial file. Raises ConfigError if the folder
contains anything else.
"""

from __future__ import annotations

import os
from pathlib import Path

from s3t_ray.errors import ConfigError
from s3t_ray.report.csv_table import chart_csv, table_csv
from s3t_ray.report.html_page import html_page
from s3t_ray.report.page_model import ReportPage

PAGE = "report.html"


def write_report(page: ReportPage, folder: Path) -> Path:
    """Write all files, and remove those of an earlier report that this one does not have. Raises ConfigError."""
    _check_folder(folder)
    files = {f"{chart.stem}.csv": chart_csv(chart) for chart in page.charts()}
    files |= {f"{table.stem}.csv": table_csv(table) for table in page.tables()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.csv"):
            if old.name not in files:
                old.unlink()
        for name, text in (*files.items(), (PAGE, html_page(page))):
            _replace(folder / name, text)
    except OSError as error:
        raise ConfigError(
            f"the report cannot be written to {folder}: {error}", "choose another folder with --out"
        ) from error
    return folder / PAGE


def _check_folder(folder: Path) -> None:
    if folder.is_dir() and not (folder / PAGE).is_file() and any(folder.iterdir()):
        raise ConfigError(
            f"{folder} contains other files than an earlier report", "choose a new or empty folder with --out"
        )
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; a report is a folder", "choose a new or empty folder with --out")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
