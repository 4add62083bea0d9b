"""Who carries a deletion on: the scheduler that is at work, another that takes over, or one of our own."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.ledger.values import Fenced
from s3t_ray.run import deletion
from s3t_ray.run.reports import Status
from s3t_ray.run.status import status
from s3t_ray.runtime import actors, delete
from s3t_ray.runtime.actors import SchedulerActor
from s3t_ray.runtime.driver import scheduler_is_active
from tests.fakes import Cluster, small_config


@pytest.fixture
def cluster(folder: Path) -> Cluster:
    trained = Cluster(small_config(folder))
    trained.settle()
    return trained


def play(
    monkeypatch: pytest.MonkeyPatch, cluster: Cluster, active: list[bool], follow: list[str], drive: list[str]
) -> None:
    """Let the world answer so: whether somebody schedules, and how following and driving end."""

    @contextlib.contextmanager
    def connected(address: str | None) -> Iterator[None]:
        yield

    def followed(run: object, *, watch: object, until: Callable[[Status], bool]) -> Status | None:
        if follow.pop(0) == "gone":
            return None
        cluster.settle()
        state = status(cluster.run)
        assert until(state)
        return state

    def driven(run: object, *, watch: Callable[[Status], None], until: object, detached: bool) -> Any:
        if drive.pop(0) == "fenced":
            raise Fenced("a newer scheduler has taken over", "stop")
        cluster.settle()
        watch(status(cluster.run))
        return actors.Snapshot(running=(), idle=True, given_up=(), trained=0, tokens=0, groups=1, rounds=1)

    monkeypatch.setattr(delete, "connected", connected)
    monkeypatch.setattr(delete, "scheduler_is_active", lambda run: active.pop(0))
    monkeypatch.setattr(delete, "follow", followed)
    monkeypatch.setattr(delete, "drive", driven)


@pytest.mark.parametrize(
    ("active", "follow", "drive"),
    [
        ([True], ["to the end"], []),
        ([True, False], ["gone"], ["to the end"]),
        ([True, True], ["gone", "to the end"], []),
        ([False, True], ["to the end"], ["fenced"]),
        ([False, False], [], ["fenced", "to the end"]),
    ],
)
def test_a_deletion_is_carried_to_its_end_whoever_schedules(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, active: list[bool], follow: list[str], drive: list[str]
) -> None:
    receipt = deletion.accept(cluster.run, ["r3"], [])
    play(monkeypatch, cluster, active, follow, drive)
    state = delete.settle(cluster.run, receipt.request_id)
    assert [deletion.state for deletion in state.deletions] == ["restored"]
    assert not active and not follow and not drive


def test_a_scheduler_beats_while_a_round_takes_long_and_no_more_once_it_hangs(cluster: Cluster) -> None:
    actor = SchedulerActor(str(cluster.run.location.storage_uri), str(cluster.run.base))
    epoch = cluster.run.ledger.take_lease("slow")
    heart = threading.Thread(target=actor._beat, args=(epoch,))
    heart.start()
    assert scheduler_is_active(cluster.run)  # no round has ended, nor begun
    actor._over.set()
    heart.join()
    assert not scheduler_is_active(cluster.run)
    actor._over.clear()
    actor._round_began = time.monotonic() - actors.HUNG_SECONDS - 1
    before = cluster.run.ledger.lease()
    actor._beat(epoch)
    assert cluster.run.ledger.lease() == before


def test_a_fenced_scheduler_stops_beating(cluster: Cluster) -> None:
    actor = SchedulerActor(str(cluster.run.location.storage_uri), str(cluster.run.base))
    epoch = cluster.run.ledger.take_lease("old")
    cluster.run.ledger.take_lease("new")
    actor._beat(epoch)  # returns
    assert cluster.run.ledger.lease().beats == 0
