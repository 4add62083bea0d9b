"""A local Ray that does not start."""

from __future__ import annotations

import pytest
import ray

from s3t_ray.errors import ClusterError
from s3t_ray.runtime.connect import connected


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """What `ray.init` raises, the last first."""
    errors: list[BaseException] = []

    def init(**options: object) -> None:
        raise errors.pop()

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for name in ("RAY_AUTH_TOKEN", "RAY_TMPDIR"):
        monkeypatch.setenv(name, "/tmp")  # `connected` may set it: restored afterwards
    return errors


def test_a_machine_too_busy_for_ray_is_an_error_of_ours(failing: list[BaseException]) -> None:
    failing.append(Exception("The current node timed out during startup."))  # as Ray raises it, by the bare class
    with pytest.raises(ClusterError, match="Ray did not start on this machine: The current node timed out") as caught:
        with connected(None):
            pass
    assert "run the command again" in caught.value.fix


def test_a_fault_of_another_kind_keeps_its_traceback(failing: list[BaseException]) -> None:
    failing.append(KeyError("of Ray"))
    with pytest.raises(KeyError), connected(None):
        pass
