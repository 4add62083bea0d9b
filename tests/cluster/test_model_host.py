"""On a cluster, the model is loaded on a rank's resources, not in the requesting process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from s3t_ray.errors import ClusterError, DataError
from s3t_ray.run.run import Run
from s3t_ray.runtime.model_host import model_host
from tests.cluster.raylets import wait_for
from tests.fakes import Cluster, fake_base, small_config, write_records


def place(run: Run) -> tuple[str, int, float]:
    return run.row.name, os.getpid(), ray.get_runtime_context().get_assigned_resources()["CPU"]


def count(_: Run, most: int) -> Iterator[int]:
    yield from range(most)


def refuse(_: Run) -> None:
    raise DataError("nothing is held out", "set data.holdout")


def die(_: Run) -> None:
    os._exit(3)


def said(line: str) -> None:
    raise AssertionError(f"nothing waits here: {line}")


@pytest.mark.usefixtures("ray_local")
def test_calls_streams_errors_and_deaths(tmp_path: Path) -> None:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    run = Cluster(small_config(tmp_path, workers={"cpus_per_rank": 2})).run
    with model_host(run, None, said) as host:
        name, process, cpus = host.call(place)
        assert (name, cpus) == (run.row.name, 2) and process != os.getpid()
        assert list(host.stream(count, 3)) == [0, 1, 2]
        with pytest.raises(DataError, match="nothing is held out"):
            host.call(refuse)
        assert host.call(place)[1] == process, "an error of the run's does not end the host"
        with pytest.raises(ClusterError, match="the process with the model ended"):
            host.call(die)
    wait_for("its resources", lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])
