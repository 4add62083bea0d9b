"""A service that does not come up says what it may wait for."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from s3t_ray.cli import serve_command
from s3t_ray.cli.serve_command import SAID_AFTER_LOOKS, waiting_for
from s3t_ray.errors import ClusterError


def test_too_few_and_too_few_free_are_distinguished() -> None:
    assert "need 4 CPUs in total, and the cluster has 2: give fewer --replicas" in waiting_for(4, 1.0, 2.0)
    told = waiting_for(2, 0.0, 2.0)
    assert "of the cluster's 2, 0 are free now" in told and "workers.groups" in told


def test_it_is_said_once_after_half_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = 0

    def status() -> Any:
        nonlocal looks
        looks += 1
        app = SimpleNamespace(status=SimpleNamespace(value="DEPLOYING"), message="")
        return SimpleNamespace(applications={} if looks > 3 * SAID_AFTER_LOOKS else {"s3t": app})

    ray, ray_serve = ModuleType("ray"), ModuleType("ray.serve")
    vars(ray).update(serve=ray_serve, available_resources=lambda: {"CPU": 1.0}, cluster_resources=lambda: {"CPU": 2.0})
    vars(ray_serve)["status"] = status
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", ray_serve)
    monkeypatch.setattr(serve_command, "LOOK_SECONDS", 0.001)
    with pytest.raises(ClusterError, match="s3t is gone"):
        serve_command._watch(("s3t",), 2)
    told = capsys.readouterr().err
    assert told.count("not up after") == 1 and "of the cluster's 2, 1 are free now" in " ".join(told.split())
