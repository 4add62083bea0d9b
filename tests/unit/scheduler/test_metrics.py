"""The figures of a run for operators, from views and deletions alone."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

from s3t_ray.ledger.values import DeletionState, RunningStage
from s3t_ray.run import deletion
from s3t_ray.scheduler.metrics import COUNTERS, GAUGES, Figures, measure
from s3t_ray.scheduler.policy.state import UNFINISHED
from tests.fakes import Cluster, fake_base, small_config, write_records

DASHBOARD = Path(__file__).parents[3] / "cluster" / "grafana-dashboard.json"


def figures(cluster: Cluster, running: tuple[RunningStage, ...] = (), later: float = 0.0) -> Figures:
    ledger = cluster.run.ledger
    rows = [row for state in UNFINISHED for row in ledger.deletions(state)]
    start = min((row.times.accepted for row in rows), default="2026-01-01T00:00:00+00:00")
    return measure(
        cluster.scheduler.views,
        running,
        rows,
        datetime.fromisoformat(start) + timedelta(seconds=later),
        restored=len(ledger.certificates()),
        given_up=0,
        groups=2,
        waiting=0,
        trained=cluster.scheduler.totals.trained,
        tokens=0,
    )


def made(folder: Path) -> Cluster:
    fake_base(folder / "base")
    write_records(folder / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    return Cluster(small_config(folder))


def test_from_nothing_to_trained_to_healed(tmp_path: Path) -> None:
    cluster = made(tmp_path)
    before = figures(cluster)
    assert (before.queued, before.depths, before.most_depth) == (12, {0: 0, 1: 0}, 3)
    cluster.settle()
    after = figures(cluster)
    assert (after.queued, after.depths, after.trained) == (0, {0: 3, 1: 3}, 12)
    assert after.oldest_unfinished_seconds == 0

    receipt = deletion.accept(cluster.run, ["r3"], [])
    struck = figures(cluster, later=90.0)
    assert struck.deletions == {"accepted": 1, "pruned": 0, "purged": 0, "restored": 0}
    assert struck.oldest_unfinished_seconds == 90.0
    cluster.settle()
    healed = figures(cluster)
    assert healed.deletions["restored"] == 1 and sum(healed.deletions.values()) == 1
    assert cluster.run.ledger.deletion(receipt.request_id).state is DeletionState.RESTORED


def test_a_stage_in_training_is_busy_and_no_longer_queued(tmp_path: Path) -> None:
    cluster = made(tmp_path)
    name = next(iter(cluster.scheduler.views[0].plan.stages))
    stage = RunningStage(
        stage_id=name, shard=0, slices=(0,), group=0, step=1, steps=9, loss=None, tokens_per_second=120.5
    )
    seen = figures(cluster, (stage,))
    assert (seen.running, seen.queued, seen.busy_share, seen.tokens_per_second) == (1, 11, 0.5, 120.5)


def test_the_dashboard_shows_what_there_is_and_nothing_else() -> None:
    """Ray puts `ray_` before a name, Prometheus' counters end with `_total`."""
    text = DASHBOARD.read_text()
    document = json.loads(text)
    shown = {target["expr"] for panel in document["panels"] for target in panel.get("targets", ())}
    exported = {f"ray_{name}" for name in GAUGES} | {f"ray_{name}_total" for name in COUNTERS}
    named = {word for expr in shown for word in _metric_names(expr)}
    assert named == exported
    assert {panel["datasource"]["uid"] for panel in document["panels"]} == {"${datasource}"}


def _metric_names(expression: str) -> list[str]:
    import re

    return re.findall(r"ray_s3t_\w+", expression)
