"""A deletion over HTTP notifies the run's scheduler, but does not need one to be accepted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run
from s3t_ray.runtime.connect import NAMESPACE, actor_name
from s3t_ray.runtime.shard_owners import ray_owners
from s3t_ray.serve.app import DeletionService
from s3t_ray.serve.routes.requests import DeletionRequest
from s3t_ray.serve.service_settings import ServiceSettings
from tests.cluster.raylets import wait_for
from tests.fakes import fake_base, small_config, write_records

pytestmark = pytest.mark.usefixtures("ray_local")


class Woken:
    """A scheduler that counts notifications, and blocks each call until it is released."""

    def __init__(self) -> None:
        self._calls = 0
        self._free = threading.Event()

    def wake(self) -> None:
        self._calls += 1
        self._free.wait()

    def calls(self) -> int:
        return self._calls

    def let_go(self) -> None:
        self._free.set()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    with Run.create(small_config(tmp_path, shards=20)) as run:
        ingest(run, lambda line: None)
        yield run


def scheduler_of(run: Run) -> Any:
    name = actor_name("scheduler", run.location.storage_uri)
    return ray.remote(Woken).options(name=name, namespace=NAMESPACE, num_cpus=0, max_concurrency=4).remote()


def test_it_is_called_for_every_deletion_and_no_receipt_waits_for_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3T_SERVE_TOKEN", "model-token-0123456789")
    monkeypatch.setenv("S3T_DELETE_TOKEN", "erase-token-0123456789")
    service = DeletionService(ServiceSettings(run=run.location.storage_uri))
    assert service.delete(DeletionRequest(ids=("r0",))).records == 1, "there is no scheduler to be told"
    scheduler = scheduler_of(run)
    assert ray.get(scheduler.calls.remote()) == 0
    for number in (1, 2):
        assert service.delete(DeletionRequest(ids=(f"r{number}",))).records == 1
        wait_for(f"call {number}", lambda known=number: ray.get(scheduler.calls.remote()) == known)
    ray.get(scheduler.let_go.remote())
    ray.kill(scheduler)


def test_owners_are_few_and_their_names_say_whose_shards_they_have(run: Run) -> None:
    owners = ray_owners(run, run.ledger.take_lease("test"))
    assert owners.views().keys() == {-1, *range(20)}
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    prefix = f"owner-{run.config.name}-shards-"
    blocks = {name.removeprefix(prefix).rpartition("-")[0] for name in names if name.startswith(prefix)}
    assert blocks >= {
        f"{a}-to-{b}" for a, b in zip(("holdout", 1, 4, 6, 9, 12, 14, 17), (0, 3, 5, 8, 11, 13, 16, 19), strict=True)
    }
