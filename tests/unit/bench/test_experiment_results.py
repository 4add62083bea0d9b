"""Saved results of experiments: they make one page, and each chart has its picture in the docs."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from benchlib.experiment_file import PICTURES, RESULTS, line, picture

from s3t_ray.report.experiment_folder import experiment_page
from s3t_ray.report.html_page import html_page
from s3t_ray.report.page_model import ReportChart


def test_every_kept_result_is_on_one_page_with_its_pictures() -> None:
    page = experiment_page(RESULTS)
    assert html_page(page).count("<figure") == len(list(page.charts())) > 0
    pictures = {path.stem for path in PICTURES.glob("*.svg")}
    assert pictures == {chart.stem for chart in page.charts()}


def test_the_documents_show_every_picture() -> None:
    text = (PICTURES.parent / "claims.md").read_text()
    assert [path.name for path in PICTURES.glob("*.svg") if f"claims/{path.name}" not in text] == []


def test_a_picture_is_an_svg_of_its_own_with_its_legend() -> None:
    chart = ReportChart(stem="a", title="t & u", x_label="x", y_label="y", series=(line("<one>", (1, 2), (3, 4)),))
    root = ElementTree.fromstring(picture(chart))
    texts = [node.text for node in root.iter() if node.tag.endswith("}text")]
    assert "<one>" in texts
    assert not [node for node in root.iter() if node.tag.endswith("script")]


def test_results_name_no_place(tmp_path: Path) -> None:
    assert [path.name for path in RESULTS.glob("*.json") if '"/' in path.read_text()] == []
