"""`s3t metrics`: what Prometheus gets from ledgers alone, and that one that cannot be read is not silent."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from s3t_ray.errors import ClusterError, LedgerError
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.scheduler.metrics import FROM_LEDGER
from s3t_ray.serve.ledger_exporter import LedgerExporter, start_exporter
from tests.fakes import Cluster, fake_base, small_config, write_records

OLDEST = "ray_s3t_oldest_unfinished_deletion_seconds"


def settled(folder: Path) -> Cluster:
    folder.mkdir()
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    cluster = Cluster(small_config(folder))
    cluster.settle()
    return cluster


def scraped(*runs: Run) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    registry.register(LedgerExporter(runs))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_an_unfinished_deletion_is_reported_with_no_scheduler_at_work(tmp_path: Path) -> None:
    cluster = settled(tmp_path / "run")
    run, name = cluster.run, ("run", cluster.run.row.name)
    before = scraped(run)
    assert before[OLDEST, (name,)] == 0
    assert before["ray_s3t_shard_depth", (name, ("shard", "1"))] == 3
    assert before["ray_s3t_ledger_up", (name,)] == 1
    assert before["ray_s3t_scheduler_beats_total", (name,)] == run.ledger.lease().beats
    assert {metric for metric, _ in before if "beats" not in metric} == {
        "ray_s3t_ledger_up",
        *(f"ray_{gauge}" for gauge in FROM_LEDGER),
    }

    deletion.accept(run, ["r3"], [])
    struck = scraped(run)
    assert struck[OLDEST, (name,)] > 0
    assert struck["ray_s3t_deletions", (name, ("state", "accepted"))] == 1
    assert struck["ray_s3t_stages_queued", (name,)] > 0


def test_a_ledger_that_cannot_be_read_says_so_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = settled(tmp_path / "good").run, settled(tmp_path / "bad").run
    bad = Run(bad.config.model_copy(update={"name": "bad"}), bad.location, bad.store, bad.ledger)

    def broken(_state: object = None) -> tuple[()]:
        raise LedgerError("the database is gone", "bring it back")

    monkeypatch.setattr(bad.ledger, "deletions", broken)
    found = scraped(good, bad)
    assert found["ray_s3t_ledger_up", (("run", "bad"),)] == 0
    assert found["ray_s3t_ledger_up", (("run", good.config.name),)] == 1
    assert [labels for metric, labels in found if metric == OLDEST] == [(("run", good.config.name),)], (
        "a value that is no longer read must not be reported"
    )


def test_prometheus_can_read_it_over_http(tmp_path: Path) -> None:
    run = settled(tmp_path / "run").run
    port = start_exporter([run], "127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        families = {family.name for family in text_string_to_metric_families(answer.read().decode())}
    assert OLDEST in families
    with pytest.raises(ClusterError, match=f"cannot listen on 127.0.0.1:{port}"):
        start_exporter([run], "127.0.0.1", port)
