"""Node requests on a real Ray without an autoscaler: made, used, withdrawn, and left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from s3t_ray.plan.demand import Demand
from s3t_ray.runtime.connect import actor_name
from s3t_ray.runtime.node_requests import NodeRequests
from s3t_ray.runtime.peers import RayPeers
from s3t_ray.runtime.worker_groups import RayWorkers
from s3t_ray.scheduler.policy.capacity import IDLE_AFTER_SECONDS, SECONDS_BETWEEN, Capacity
from tests.cluster.raylets import wait_for
from tests.fakes import small_config
from tests.tiny import tiny_llama

pytestmark = pytest.mark.usefixtures("ray_local")  # 4 CPUs, and a group takes 1


def asked(name: str) -> list[str]:
    """States of the requests."""
    groups = placement_group_table().values()
    return sorted(g["state"] for g in groups if g["name"].startswith(name) and g["state"] != "REMOVED")


def test_a_request_becomes_a_worker_group_when_there_is_room(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "base", layers=4)
    config = small_config(tmp_path, slices=2)
    name = actor_name("request", config.storage.uri)
    wait_for("an empty cluster", lambda: ray.available_resources().get("CPU") == 4)
    others = placement_group([{"CPU": 4}])
    ray.get(others.ready())
    NodeRequests(config).ask(3)  # of a scheduler that died
    assert asked(name) == ["PENDING"] * 3
    requests = NodeRequests(config)
    assert asked(name) == []
    requests.ask(2)
    requests.ask(1)
    requests.ask(2)
    assert asked(name) == ["PENDING"] * 2
    workers = RayWorkers(config, str(tmp_path / "base"), 0)
    try:
        remove_placement_group(others)
        wait_for("room", lambda: asked(name) == ["CREATED"] * 2)
        taken = requests.take(1)
        workers.resize(1, taken)
        assert workers._groups[0].placement.id == taken[0].id
        requests.ask(0)
        assert asked(name) == ["CREATED"], "the room that nobody took is given back"
        wait_for("the group", lambda: workers.free() == (0,))
    finally:
        requests.close()
        workers.close()
    wait_for("all room", lambda: ray.available_resources().get("CPU") == 4)


def test_a_run_asks_while_it_trains_and_rests_without_a_node(tmp_path: Path) -> None:
    now = 0.0
    none = small_config(tmp_path, workers={"autoscale_to": 3, "gpus_per_rank": 1})  # no GPU is here
    some = small_config(tmp_path, workers={"autoscale_to": 3})
    looks = {
        name: Capacity(config, RayPeers(config.storage.uri), lambda: now)
        for name, config in (("none", none), ("some", some))
    }
    assert {name: look.first(lambda: 4) for name, look in looks.items()} == {"none": 0, "some": 0}

    def demands(idle: bool, held: int, to_train: int) -> dict[str, Demand | None]:
        nonlocal now
        now += SECONDS_BETWEEN
        return {name: look.look(idle, held, lambda: to_train) for name, look in looks.items()}

    assert demands(idle=False, held=0, to_train=4) == {"none": Demand(0, 3), "some": Demand(3)}
    assert demands(idle=False, held=3, to_train=1) == {"none": Demand(0, 1), "some": Demand(1)}
    assert demands(idle=True, held=1, to_train=0) == {"none": Demand(0), "some": Demand(1)}
    now += IDLE_AFTER_SECONDS
    assert demands(idle=True, held=1, to_train=0) == {"none": Demand(0), "some": Demand(0)}
