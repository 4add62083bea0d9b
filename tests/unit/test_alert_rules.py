"""The alert rules in cluster/: about metrics that there are, and not silent when nobody reports them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from s3t_ray.scheduler.metrics import FROM_LEDGER, GAUGES

RULES = Path(__file__).parents[2] / "cluster" / "prometheus-alerts.yaml"


def alerts() -> dict[str, Any]:
    document = yaml.safe_load(RULES.read_text())
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def test_alerts_are_about_metrics_that_there_are() -> None:
    exported = {f"ray_{name}" for name in GAUGES}
    for name, rule in alerts().items():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, name
        named = set(re.findall(r"\bray_s3t_\w+", rule["expr"]))
        assert named and named <= exported, name
        assert rule["expr"].count("(") == rule["expr"].count(")"), name


def test_the_alert_on_deletions_cannot_go_silent() -> None:
    """Whoever reports the metric may end: both its absence everywhere and that of one run alert."""
    metric = "ray_s3t_oldest_unfinished_deletion_seconds"
    about = {name: rule["expr"] for name, rule in alerts().items() if metric in rule["expr"]}
    assert f"absent({metric})" in about.values()
    assert any("unless" in expr and "last_over_time" in expr for expr in about.values())
    assert metric.removeprefix("ray_") in FROM_LEDGER, "else it would vanish with the scheduler"
