"""The report in a real Chromium, from a file: mouse and keyboard, light and dark, phone size; it loads nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from s3t_ray.report.experiment_folder import Experiment, experiment_page
from s3t_ray.report.page_model import ChartSeries, ReportChart, ReportSection, ReportTable
from s3t_ray.report.report_files import write_report
from s3t_ray.report.run_facts import read_facts
from s3t_ray.report.run_page import run_page
from s3t_ray.run import deletion
from tests.e2e.test_page import NAMES, contrast
from tests.fakes import Cluster, fake_base, small_config, write_records

EVIL = "</script><img src=x onerror=\"document.title='run'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "the report is tested in a real Chromium: install one (Debian, Ubuntu: apt-get install chromium)"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def of_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with a deletion that was healed and one that is open."""
    folder = tmp_path_factory.mktemp("run")
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(20)])
    cluster = Cluster(small_config(folder))
    cluster.settle()
    deletion.accept(cluster.run, ["r3"], ())
    cluster.settle()
    deletion.accept(cluster.run, ["r7"], ())
    return write_report(run_page(read_facts(cluster.run), {}, 2.5), folder / "report")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1000, "height": 800}, accept_downloads=True)
    errors: list[str] = []
    asked: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    opened.on("request", lambda request: asked.append(request.url))
    yield opened
    opened.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_a_chart_is_read_by_pointer_and_by_keys(page: Page, of_run: Path) -> None:
    page.goto(of_run.as_uri())
    expect(page.get_by_role("heading", name="Run test")).to_be_visible()
    picture = page.locator("#depth-over-time .picture svg")
    tip = page.locator("#tip")
    picture.hover()
    expect(tip).to_contain_text("mean of shards: ")
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    picture.focus()
    page.keyboard.press("Home")
    expect(tip).to_contain_text("time since the first stage: 0 s")
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() != first
    page.keyboard.press("ArrowLeft")
    assert tip.inner_text() == first
    page.keyboard.press("End")
    expect(tip).to_contain_text("shard 1: 3")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_deletions_are_there_with_their_certificates_and_csv(page: Page, of_run: Path) -> None:
    page.goto(of_run.as_uri())
    rows = page.get_by_role("region", name="Each deletion", exact=True).locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("final")
    expect(rows.nth(0)).to_contain_text("holds")
    expect(rows.nth(1)).to_contain_text("not due yet")
    for link in page.locator("a.csv").all():
        assert (of_run.parent / str(link.get_attribute("href"))).read_text().count("\n") >= 1
    expect(page.locator(".mark.deletion")).to_have_count(2)


def test_by_keyboard_every_chart_and_table_is_reached(page: Page, of_run: Path) -> None:
    page.goto(of_run.as_uri())
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.ariaLabel || document.activeElement.id || ''"))
    wanted = {node.get_attribute("aria-label") for node in page.locator(".picture svg").all()}
    assert wanted and wanted <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read_in_light_and_dark(browser: Browser, of_run: Path, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 375, "height": 700}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(of_run.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
    ink, ground = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
    assert contrast(ink, ground) > 7  # WCAG AAA for text
    card = page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor")
    for line in page.locator(".picture .line").all():
        assert contrast(line.evaluate("node => getComputedStyle(node).stroke"), card) > 3  # WCAG AA for graphics
    context.close()


def test_what_people_wrote_in_an_experiment_is_text(page: Page, tmp_path: Path) -> None:
    series = ChartSeries(name=EVIL, x=(1, 2, 3), y=(1, 2, 4), low=(0, 1, 2), high=(2, 3, 5))
    chart = ReportChart(stem="chart", title=EVIL, x_label=EVIL, y_label=EVIL, series=(series,), caption=EVIL)
    table = ReportTable(stem="table", title=EVIL, columns=(EVIL,), rows=((EVIL,),))
    section = ReportSection(title=EVIL, text=(EVIL,), charts=(chart,), tables=(table,))
    experiment = Experiment(title=EVIL, command=EVIL, measured=EVIL, sections=(section,))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "one.json").write_text(experiment.model_dump_json())
    page.goto(write_report(experiment_page(tmp_path / "results"), tmp_path / "report").as_uri())
    expect(page).to_have_title("results")
    assert page.locator("img").count() == 0
    page.locator("#chart .picture svg").hover()
    expect(page.locator("#tip")).to_contain_text(EVIL)
    expect(page.locator("td")).to_have_text(EVIL)
