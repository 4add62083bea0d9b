"""A run's share of a cluster, and what it asks an autoscaler for, with the other runs and the nodes played."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from s3t_ray.config.schema import Config
from s3t_ray.plan.demand import Demand
from s3t_ray.plan.fair_shares import Claim, Standing
from s3t_ray.plan.resources import Resources
from s3t_ray.scheduler.policy.capacity import (
    FIRST_ANSWERS_SECONDS,
    IDLE_AFTER_SECONDS,
    REST_AFTER_SECONDS,
    SECONDS_BETWEEN,
    Autoscaling,
    Capacity,
)
from tests.fakes import small_config

ALL = Claim(1.0, Standing.TRAINING)


class PlayedCluster:
    """`cpus` nodes of one CPU, and other runs with their claims; None: a scheduler that has not begun."""

    own = "scheduler-own"

    def __init__(self, cpus: int) -> None:
        self.cpus = cpus
        self.now = 0.0
        self.others: dict[str, Claim | None] = {}
        self.silent: set[str] = set()
        self.waited: list[float] = []
        self._asked: list[str] = []

    def nodes(self) -> list[Resources]:
        return [{"CPU": 1.0}] * self.cpus

    def names(self) -> set[str]:
        return set(self.others)

    def ask(self, name: str) -> None:
        assert name not in self._asked, "it has not answered the first question"
        self._asked.append(name)

    def answers(self, wait_seconds: float) -> dict[str, Claim | None]:
        self.waited.append(wait_seconds)
        answered = [name for name in self._asked if name not in self.silent]
        self._asked = [name for name in self._asked if name in self.silent]
        return {name: self.others.get(name) for name in answered}

    def clock(self) -> float:
        return self.now


def capacity(config: Config, cluster: PlayedCluster) -> Capacity:
    return Capacity(config, cluster, cluster.clock)


def standing(found: Capacity) -> str:
    return found.claim.standing.name


def looks(found: Capacity, cluster: PlayedCluster, idle: bool = False, to_train: int = 8, held: int = 4) -> Demand:
    """The result after two looks: the first asks, the second has the answer."""
    demand = None
    for _ in range(2):
        cluster.now += SECONDS_BETWEEN
        demand = found.look(idle, held, lambda: to_train)
        assert demand is not None
        assert found.look(idle, held, lambda: to_train) is None, "too soon after the last look"
    assert demand is not None
    return demand


def test_a_fixed_number_of_groups_is_what_was_asked_for_and_claimed(tmp_path: Path) -> None:
    cluster = PlayedCluster(4)
    cluster.others["scheduler-other"] = ALL
    found = capacity(small_config(tmp_path, workers={"groups": 3}), cluster)
    assert found.first(lambda: 8) == 3 and found.claim == Claim(0.75, Standing.FIXED)
    assert not any(cluster.waited), "it waits for nobody"


def test_a_run_that_starts_hears_the_others_before_it_takes_anything(tmp_path: Path) -> None:
    cluster = PlayedCluster(4)
    cluster.others["scheduler-other"] = ALL
    found = capacity(small_config(tmp_path, shards=4), cluster)
    assert found.first(lambda: 8) == 2 and cluster.waited[0] == FIRST_ANSWERS_SECONDS


def test_shares_follow_runs_that_come_rest_fall_silent_and_go(tmp_path: Path) -> None:
    cluster = PlayedCluster(4)
    found = capacity(small_config(tmp_path, shards=4), cluster)
    assert found.first(lambda: 8) == 4
    cluster.others = {"scheduler-other": ALL, "scheduler-begins": None}
    assert looks(found, cluster) == Demand(2)
    cluster.silent = {"scheduler-other"}
    assert looks(found, cluster) == Demand(2), "its last claim counts while it is there"
    cluster.silent = set()
    cluster.now += IDLE_AFTER_SECONDS
    assert looks(found, cluster, idle=True) == Demand(1)
    assert standing(found) == "IDLE"
    cluster.others["scheduler-other"] = None  # it is over
    assert looks(found, cluster, idle=True) == Demand(4)
    assert looks(found, cluster) == Demand(4) and standing(found) == "TRAINING"
    cluster.others = {"scheduler-other": ALL}
    assert looks(found, cluster) == Demand(2)
    cluster.others = {}
    assert looks(found, cluster) == Demand(4)


class GpuCluster(PlayedCluster):
    """Its nodes have a GPU each."""

    def nodes(self) -> list[Resources]:
        return [{"CPU": 1.0, "GPU": 1.0}] * self.cpus


def test_limits_of_the_runs_own_are_no_claim_to_all_of_the_cluster(tmp_path: Path) -> None:
    """Two runs that may have 4 GPUs each, on 16: neither leaves half of its own to the other."""
    limited = small_config(tmp_path, shards=8, workers={"gpus_per_rank": 1, "max_gpus": 4})
    cluster = GpuCluster(16)
    found = capacity(limited, cluster)
    assert found.claim == Claim(0.25, Standing.TRAINING)
    cluster.others["scheduler-other"] = found.claim
    assert found.first(lambda: 16) == 4
    assert looks(found, cluster, to_train=16) == Demand(4)
    cluster.others["scheduler-third"] = ALL
    assert looks(found, cluster, to_train=16) == Demand(4)
    cluster.cpus = 6
    assert looks(found, cluster, to_train=16) == Demand(2), "now they share"


def test_under_an_autoscaler_it_begins_with_nothing_and_asks_for_what_it_can_use(tmp_path: Path) -> None:
    cluster = PlayedCluster(1)
    found = capacity(small_config(tmp_path, shards=4, workers={"autoscale_to": 3}), cluster)
    assert found.first(lambda: 8) == 0
    assert found.look(False, 0, lambda: 8) == Demand(1, 2), "the first look is due at once"
    assert looks(found, cluster, to_train=1, held=1) == Demand(1)
    cluster.cpus = 2
    assert looks(found, cluster, to_train=8) == Demand(2, 1)
    assert looks(found, cluster, idle=True, to_train=0, held=2) == Demand(2), "the base model stays loaded for a while"
    cluster.now += IDLE_AFTER_SECONDS
    assert looks(found, cluster, idle=True, to_train=0, held=2) == Demand(0)


class PlayedGroups:
    def __init__(self, count: int) -> None:
        self.count = count
        self.rooms: list[str] = []

    def waiting(self) -> int:
        return 1

    def resize(self, count: int, rooms: Iterable[str] = ()) -> None:
        self.count = count
        self.rooms += rooms


class PlayedRequests:
    def __init__(self) -> None:
        self.open: list[str] = []

    def take(self, groups: int) -> list[str]:
        taken, self.open = self.open[: max(0, groups)], self.open[max(0, groups) :]
        return taken

    def ask(self, groups: int) -> None:
        self.open = [f"room {number}" for number in range(groups)]


def test_a_group_that_gets_room_takes_over_what_waited_for_it(tmp_path: Path) -> None:
    cluster = PlayedCluster(0)
    groups, requests = PlayedGroups(0), PlayedRequests()
    found = capacity(small_config(tmp_path, shards=4, workers={"autoscale_to": 3}), cluster)
    autoscaling = Autoscaling(found, groups, requests)
    assert autoscaling.adjust(idle=False, to_train=lambda: 8) == 3 + groups.waiting()
    assert (groups.count, len(requests.open)) == (0, 3)
    cluster.cpus, cluster.now = 2, SECONDS_BETWEEN
    autoscaling.adjust(idle=False, to_train=lambda: 8)
    assert (groups.count, groups.rooms, len(requests.open)) == (2, ["room 0", "room 1"], 1)
    assert autoscaling.adjust(idle=False, to_train=lambda: pytest.fail("it was looked at a moment ago")) is None
    cluster.now += IDLE_AFTER_SECONDS + SECONDS_BETWEEN
    autoscaling.adjust(idle=True, to_train=lambda: 0)
    assert (groups.count, requests.open) == (0, [])


def test_a_run_that_rests_has_no_group_and_begins_at_once_when_there_is_work(tmp_path: Path) -> None:
    cluster = PlayedCluster(4)
    found = capacity(small_config(tmp_path, workers={"groups": 2}), cluster)
    assert found.first(lambda: 0) == 0, "nothing to train: no base is loaded"
    cluster.now += SECONDS_BETWEEN
    assert found.look(True, 0, lambda: 0) == Demand(0)
    cluster.now += 0.1
    assert found.look(True, 0, lambda: 0) is None
    assert found.look(False, 0, lambda: 3) == Demand(2), "a deletion struck something"
    assert found.look(False, 2, lambda: 3) is None
    cluster.now += REST_AFTER_SECONDS - 1
    assert found.look(True, 2, lambda: 0) == Demand(2), "the base stays loaded for what comes next"
    cluster.now += SECONDS_BETWEEN
    assert found.look(True, 2, lambda: 0) == Demand(0)


def test_a_fixed_number_of_groups_is_never_more(tmp_path: Path) -> None:
    cluster, groups = PlayedCluster(8), PlayedGroups(2)
    autoscaling = Autoscaling(
        capacity(small_config(tmp_path, workers={"groups": 2}), cluster), groups, PlayedRequests()
    )
    autoscaling.adjust(idle=False, to_train=lambda: 8)
    assert groups.count == 2
