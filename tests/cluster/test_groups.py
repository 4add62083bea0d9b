"""Worker groups on a real Ray: more and fewer of them while it runs, and a cluster shared with other runs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import ray

from s3t_ray.plan.demand import Demand
from s3t_ray.plan.fair_shares import Claim, Standing
from s3t_ray.runtime.connect import NAMESPACE, ray_logs
from s3t_ray.runtime.peers import PREFIX, RayPeers
from s3t_ray.runtime.worker_groups import RayWorkers
from s3t_ray.scheduler.policy.capacity import IDLE_AFTER_SECONDS, SECONDS_BETWEEN, Capacity
from s3t_ray.train.job import SliceInput, StageJob
from tests.cluster.raylets import wait_for
from tests.fakes import small_config
from tests.tiny import tiny_llama

pytestmark = pytest.mark.usefixtures("ray_local")  # 4 CPUs, and a group takes 1


def free_cpus() -> float:
    return ray.available_resources().get("CPU", 0.0)


def test_groups_are_added_and_taken_away(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "base", layers=4)
    wait_for("an empty cluster", lambda: free_cpus() == 4)
    config, wake = small_config(tmp_path, slices=2), threading.Event()
    workers = RayWorkers(config, str(tmp_path / "base"), 1, wake)
    try:
        wait_for("the first group", lambda: workers.free() == (0,))
        names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
        assert [name for name in names if name.startswith(f"rank-{config.name}-group-0-0-")]
        workers.resize(2)
        wait_for("the second group", lambda: workers.free() == (0, 1))
        assert workers.count == 2
        workers.resize(1)
        assert workers.free() == (0,) and workers.count == 1
        wait_for("its room", lambda: free_cpus() == 3)
        workers.resize(6)  # more than there is room for: they wait, and are the first to go
        wait_for("two of them to wait", lambda: workers.waiting() == 2)
        threading.Timer(0.1, wake.set).start()
        assert workers.finished(wait_seconds=3600.0) == (), "what is new for the scheduler ends its wait"
        workers.resize(1)
        assert workers.free() == (0,), "the group that was ready is kept"
        assert workers.waiting() == 0

        lost = SliceInput(0, "slices/0/0/lost.parquet", "0" * 64, "0" * 64, 3, "00" * 32)
        workers.submit(0, StageJob("5" * 64, "recipe", "base", 0, (lost,), (), "00" * 32))
        (failed,) = wait_for("its failure", lambda: workers.finished(1.0))
        assert failed.stage_id == "5" * 64 and not failed.lost
        problem, fix, traceback = failed.error.split("\n  ")
        assert problem and fix.startswith("fix: ") and traceback.startswith("traceback: ")
        kept = Path(traceback.rpartition(":")[2])
        assert kept.parent == ray_logs() and "rank.py" in kept.read_text(), "the traceback is among Ray's logs"
    finally:
        workers.close()
    wait_for("all room", lambda: free_cpus() == 4)


class Claimant:
    """A scheduler of another run that only answers its peers."""

    def __init__(self, claim: Claim | None) -> None:
        self._claim = claim

    def claim(self) -> Claim | None:
        return self._claim


def start(name: str, claim: Claim | None) -> Any:
    options = {"name": f"{PREFIX}{name}", "namespace": NAMESPACE, "num_cpus": 0}
    actor = ray.remote(Claimant).options(**options).remote(claim)
    ray.get(actor.claim.remote())
    return actor


def test_runs_share_the_cluster_as_they_come_train_and_go(tmp_path: Path) -> None:
    now = 0.0
    config = small_config(tmp_path, shards=4)  # 4 shards x 2 sequences, room for 4
    peers = RayPeers(config.storage.uri)
    capacity = Capacity(config, peers, lambda: now)
    assert capacity.first(lambda: 8) == 4

    def shares(idle: bool = False) -> int:
        """The result after two looks: the first asks, the second has the answer."""
        nonlocal now
        found = 0
        for _ in range(2):
            now += SECONDS_BETWEEN
            demand = look(capacity, idle)
            assert demand is not None and demand.missing == 0, "nodes are asked for under autoscale_to alone"
            found = demand.groups
            assert look(capacity, idle) is None, "too soon after the last look"
            wait_for("the answers", lambda: all(map(_is_done, peers._asked)))
        return found

    other = start("other", Claim(1.0, Standing.TRAINING))
    begins = start("begins", None)
    assert shares() == 2
    newcomer = Capacity(config, RayPeers(config.storage.uri), lambda: now)
    assert newcomer.first(lambda: 8) == 2, "a scheduler that starts asks before it takes anything"
    now += IDLE_AFTER_SECONDS
    assert shares(idle=True) == 1
    assert capacity.claim.standing is Standing.IDLE
    ray.kill(other)
    ray.kill(begins)
    wait_for("its end", lambda: shares(idle=True) == 4)
    assert shares() == 4


def test_a_run_that_rests_has_no_group_and_begins_at_once_when_there_is_work(tmp_path: Path) -> None:
    config = small_config(tmp_path, workers={"groups": 2})
    assert Capacity(config, RayPeers(config.storage.uri)).first(lambda: 0) == 0, "nothing to train: no base is loaded"


def look(capacity: Capacity, idle: bool) -> Demand | None:
    return capacity.look(idle, 4, lambda: 8)


def _is_done(future: ray.ObjectRef) -> bool:
    return bool(ray.wait([future], timeout=0)[0])
