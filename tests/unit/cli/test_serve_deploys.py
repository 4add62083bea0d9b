"""An application that Ray Serve cannot deploy. Ray Serve is a stand-in: a real one takes minutes to give up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray.serve

from s3t_ray.cli.serve_command import _deploy
from s3t_ray.errors import ClusterError


def test_what_ray_serve_says_reaches_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(application: object, **options: object) -> None:
        raise RuntimeError("Deploying application s3t failed: Failed to update the deployments ['ModelService'].")

    message = "Traceback:\n  File 'a.py'\n  File 'b.py'\n\ns3t_ray.errors.ConfigError: the base model is not the one\n"
    model = SimpleNamespace(message=message)
    found = SimpleNamespace(message="", deployments={"ModelService": model})
    monkeypatch.setattr(ray.serve, "run", run)
    monkeypatch.setattr(ray.serve, "status", lambda: SimpleNamespace(applications={"s3t": found}))
    with pytest.raises(ClusterError, match=r"s3t did not start: .*ConfigError: the base model is not the one"):
        _deploy("s3t", object(), "/v1")
    with pytest.raises(ClusterError, match="another did not start: Deploying application s3t failed"):
        _deploy("another", object(), "/v1")
