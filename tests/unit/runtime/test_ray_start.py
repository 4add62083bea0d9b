"""A Ray that does not start is an error of ours with a fix; what is a bug stays one."""

from __future__ import annotations

import pytest
import ray

from s3t_ray.errors import ClusterError
from s3t_ray.runtime.connect import connected


class Unforeseen(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Exception("The current node timed out during startup. This could happen because"), "did not start within"),
        (ConnectionError("no GCS"), "cannot reach Ray at this machine: no GCS"),
    ],
)
def test_a_ray_that_does_not_start(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(ClusterError, match=words) as refused, connected(None):
        pass
    assert refused.value.fix


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: object) -> None:
        raise Unforeseen

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(Unforeseen), connected(None):
        pass
