"""`s3t report`: what it says of a run is what the ledger, the log and the manifests say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from s3t_ray.errors import ConfigError, DataError
from s3t_ray.report.experiment_folder import Experiment, experiment_page
from s3t_ray.report.html_page import html_page
from s3t_ray.report.page_model import ChartSeries, ReportChart, ReportPage, ReportSection
from s3t_ray.report.report_files import write_report
from s3t_ray.report.run_facts import read_facts
from s3t_ray.report.run_page import depth_series, run_page
from s3t_ray.run import deletion
from s3t_ray.run.log.key_change import change_key
from s3t_ray.run.reports import DepthLoss, Evaluation
from s3t_ray.store.layout import MANIFEST, stage_folder
from tests.fakes import Cluster, fake_base, small_config, write_records
from tests.fakes.command_line import s3t


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"secret-{number}", f"person-{number % 5}") for number in range(20)])
    made = Cluster(small_config(tmp_path))
    made.settle()
    return made


def facts_of(page: ReportPage) -> dict[str, object]:
    return {fact.name: fact.value for section in page.sections for fact in section.facts}


def rows_of(page: ReportPage, stem: str) -> list[dict[str, object]]:
    table = next(table for table in page.tables() if table.stem == stem)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_a_run_before_and_after_a_deletion(cluster: Cluster) -> None:
    before = run_page(read_facts(cluster.run), {})
    assert "deletions" not in {table.stem for table in before.tables()}
    assert facts_of(before)["Training records"] == 20
    receipt = deletion.accept(cluster.run, (), ["person-3"])
    open_page = run_page(read_facts(cluster.run), {})
    (row,) = rows_of(open_page, "deletions")
    assert (row["state"], row["certificate"], row["its signature"]) == ("accepted", "none", "not due yet")
    assert row["stages out of service"] == len(receipt.stages_pruned) > 0
    cluster.settle()
    facts = read_facts(cluster.run)
    page = run_page(facts, {}, price_per_hour=3600.0)
    (row,) = rows_of(page, "deletions")
    assert (row["request"], row["state"], row["records"]) == (receipt.request_id, "restored", receipt.records)
    assert (row["certificate"], row["its signature"]) == ("final", "holds")
    certificate = cluster.run.ledger.certificate(receipt.request_id)
    assert certificate is not None and row["its entry in the log"] == certificate.facts.sequence
    steps = [float(str(row[f"s to {name}"])) for name in ("pruned", "purged", "restored")]
    assert 0 <= steps[0] <= steps[1] <= steps[2]
    (cost,) = rows_of(page, "deletion-cost")
    again = facts.deletions[0].retrained
    assert cost["stages retrained"] == len(again) == len(receipt.stages_pruned)
    seconds = sum(each.manifest.seconds for each in facts.stages if each.row.id in again and each.manifest)
    assert cost["worker-group seconds"] == pytest.approx(seconds)
    assert cost["price"] == pytest.approx(seconds)


def test_depths_over_time_are_those_of_the_history(cluster: Cluster) -> None:
    deletion.accept(cluster.run, ["secret-3"], ())
    cluster.settle()
    facts = read_facts(cluster.run)
    mean, *shards = depth_series(facts.history, 2)
    assert [each.name for each in shards] == ["shard 0", "shard 1"]
    assert mean.y[-1] == 3.0 and mean.y[0] < 3.0
    assert min(mean.y[10:]) < 3.0, "the deletion made a shard shallower"
    assert all(m == (a + b) / 2 for m, a, b in zip(mean.y, shards[0].y, shards[1].y, strict=True))
    assert [mark.kind for mark in next(iter(run_page(facts, {}).charts())).marks] == ["deletion", "restored"]


def test_the_page_names_no_record_and_nobody(cluster: Cluster) -> None:
    deletion.accept(cluster.run, ["secret-3"], ["person-1"])
    cluster.settle()
    text = html_page(run_page(read_facts(cluster.run), {}))
    assert "secret-" not in text and "person-" not in text


def test_damage_is_told_and_the_report_made_all_the_same(cluster: Cluster) -> None:
    stage = read_facts(cluster.run).stages[0].row.id
    path = cluster.run.store.local_path(f"{stage_folder(stage)}/{MANIFEST}")
    assert path is not None
    path.write_text("{}")
    page = run_page(read_facts(cluster.run), {})
    assert [line for line in page.sections[0].text if line.startswith("Problem:") and stage in line]


def test_a_certificate_that_does_not_check_is_told(cluster: Cluster) -> None:
    deletion.accept(cluster.run, ["secret-3"], ())
    cluster.settle()
    with cluster.run.ledger._database.write() as tx:
        tx.connection.exec_driver_sql("UPDATE s3t_log SET entry = replace(entry, '\"records\":1', '\"records\":2')")
    (row,) = rows_of(run_page(read_facts(cluster.run), {}), "deletions")
    assert "signature" in str(row["its signature"])


def test_a_certificate_from_before_a_change_of_key_holds(cluster: Cluster) -> None:
    deletion.accept(cluster.run, ["secret-3"], ())
    cluster.settle()
    change_key(cluster.run, "rotation")
    page = run_page(read_facts(cluster.run), {})
    (row,) = rows_of(page, "deletions")
    assert row["its signature"] == "holds"
    with cluster.run.ledger._database.write() as tx:
        tx.connection.exec_driver_sql("UPDATE s3t_log SET entry = replace(entry, '\"rotation\"', '\"hand-over\"')")
    told = read_facts(cluster.run)
    assert [problem for problem in told.problems if "signature" in problem]


def test_evaluations_become_a_chart_and_a_table(cluster: Cluster) -> None:
    scores = tuple(DepthLoss(depth=d, loss=2.0 - d, standard_error=0.1, metrics={"accuracy": 0.5}) for d in (0, 1))
    evaluation = Evaluation(records=9, tokens=9, by_depth=scores, live=scores[1], depths=(1, 1))
    page = run_page(read_facts(cluster.run), {"after": evaluation})
    chart = next(chart for chart in page.charts() if chart.stem == "loss-by-depth")
    assert chart.series[0].y == (2.0, 1.0)
    assert chart.series[0].high[0] == pytest.approx(2.196)
    assert [row["model"] for row in rows_of(page, "quality")] == ["live", "depth 0", "depth 1"]


def test_the_command_writes_the_page_and_its_csv(cluster: Cluster, tmp_path: Path) -> None:
    place = str(tmp_path / "run")
    out = tmp_path / "out"
    assert s3t("report", place, "--out", str(out)).stdout.strip() == str(out / "report.html")
    names = {path.name for path in out.iterdir()}
    assert {"report.html", "shards.csv", "depth-over-time.csv"} <= names
    with (out / "shards.csv").open() as file:
        assert [row["serves depth"] for row in csv.DictReader(file)] == ["3", "3"]
    page = (out / "report.html").read_text()
    assert all(f'href="{name}"' in page for name in names - {"report.html"})
    (out / "stale.csv").write_text("x")
    s3t("report", place, "--out", str(out))
    assert not (out / "stale.csv").exists()


@pytest.mark.parametrize("given", [(), ("run", "--experiment", ".")])
def test_one_of_run_and_experiment(given: tuple[str, ...]) -> None:
    told = s3t("report", *given)
    assert told.exit_code == 2
    assert told.stderr.startswith("error: a report covers either a run or an experiment")


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.csv").write_text("mine")
    with pytest.raises(ConfigError, match="other files"):
        write_report(ReportPage(title="", subtitle="", sections=()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.csv"]
    with pytest.raises(ConfigError, match="is a file"):
        write_report(ReportPage(title="", subtitle="", sections=()), tmp_path / "thesis.csv")


def experiment(stem: str) -> Experiment:
    series = ChartSeries(name="measured", x=(1, 2), y=(3, 4))
    chart = ReportChart(stem=stem, title="c", x_label="x", y_label="y", series=(series,))
    section = ReportSection(title="", charts=(chart,))
    return Experiment(title=f"of {stem}", command="python x.py", measured="today, alone", sections=(section,))


def test_an_experiment_is_a_folder_of_results(tmp_path: Path) -> None:
    for number, stem in enumerate(("b", "a")):
        (tmp_path / f"{number}.json").write_text(experiment(stem).model_dump_json())
    page = experiment_page(tmp_path)
    assert [section.title for section in page.sections] == ["of b", "of a"]
    assert page.sections[0].text == ("Command: python x.py", "Measured: today, alone")
    with pytest.raises(DataError, match="no experiment results"):
        experiment_page(tmp_path / "nowhere")
    (tmp_path / "2.json").write_text(json.dumps({"format": "s3t/experiment/9"}))
    with pytest.raises(DataError, match=r"2\.json is not a result of an experiment: format"):
        experiment_page(tmp_path)
    (tmp_path / "2.json").write_text(experiment("a").model_dump_json())
    with pytest.raises(DataError, match="cannot be combined on one page"):
        experiment_page(tmp_path)
