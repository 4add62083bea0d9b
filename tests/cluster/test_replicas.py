"""Serving replicas from the scheduler's view: found by name, notified, confirmed, and killed if they do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from s3t_ray.run.run import Run
from s3t_ray.runtime.actors import find_scheduler
from s3t_ray.runtime.connect import NAMESPACE, actor_name
from s3t_ray.runtime.ray_host import RayServingReplica, find_replicas
from s3t_ray.scheduler.confirmations import Confirmations
from tests.cluster.raylets import wait_for
from tests.fakes import fake_base, small_config, write_records

CHAINS = {0: ("a", "b"), 1: ()}


class Told:
    """A replica that records its live sets, and confirms `confirms` instead of the version if that is set."""

    def __init__(self, confirms: int | None = None) -> None:
        self._confirms = confirms
        self._told: list[tuple[int, dict[int, tuple[str, ...]]]] = []

    def set_live(self, version: int, chains: Mapping[int, tuple[str, ...]]) -> int:
        self._told.append((version, dict(chains)))
        return version if self._confirms is None else self._confirms

    def told(self) -> list[tuple[int, dict[int, tuple[str, ...]]]]:
        return self._told


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [("r1", None)])
    with Run.create(small_config(tmp_path)) as run:
        yield run


def is_dead(actor: Any) -> bool:
    try:
        ray.get(actor.told.remote())
    except RayActorError:
        return True
    return False


def start(run: Run, name: str, **options: Any) -> Any:
    actor = ray.remote(Told).options(
        name=f"{actor_name('replica', run.location.storage_uri)}-{name}", namespace=NAMESPACE, num_cpus=0
    )
    return actor.remote(**options)


def test_a_new_scheduler_finds_the_replicas_that_followed_another(ray_local: None, run: Run) -> None:
    ours = start(run, "1")
    other = ray.remote(Told).options(name="replica-of-another-run", namespace=NAMESPACE, num_cpus=0).remote()
    ray.get([ours.told.remote(), other.told.remote()])
    found = find_replicas(run)
    assert [name.rsplit("-", 1)[1] for name in found] == ["1"]
    replicas = Confirmations()
    replicas.begin(7)
    for name, replica in found.items():
        replicas.attach(name, replica)
    assert replicas.set_live(CHAINS) == ()
    ((version, chains),) = ray.get(ours.told.remote())
    assert version > 7 << 32 and chains == CHAINS
    assert ray.get(other.told.remote()) == []
    assert find_scheduler(run) is None


def test_a_replica_that_does_not_confirm_is_killed_and_the_others_go_on(ray_local: None, run: Run) -> None:
    good, bad = start(run, "good"), start(run, "bad", confirms=3)
    replicas = Confirmations()
    replicas.begin(1)
    replicas.attach("good", RayServingReplica(good))
    replicas.attach("bad", RayServingReplica(bad))
    replicas.set_live(CHAINS)
    wait_for("its end", lambda: is_dead(bad))  # a kill is on its way to the actor, calls may overtake it
    replicas.set_live({0: ("a",), 1: ()})
    assert [chains for _, chains in ray.get(good.told.remote())] == [CHAINS, {0: ("a",), 1: ()}]
