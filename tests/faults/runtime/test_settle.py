"""Who completes a deletion: the running scheduler, another that takes over, or our own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3t_ray.ledger.values import Fenced
from s3t_ray.run import deletion
from s3t_ray.run.reports import Status
from s3t_ray.run.status import status
from s3t_ray.runtime import delete
from s3t_ray.runtime.driver import scheduler_is_active
from s3t_ray.scheduler.loop import HUNG_SECONDS, Heartbeat, Snapshot
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
        return Snapshot(idle=True, groups=1, rounds=1)

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
    ledger = cluster.run.ledger
    epoch = ledger.take_lease("slow")
    heartbeat = Heartbeat(ledger, epoch)
    thread = threading.Thread(target=heartbeat.run)
    thread.start()
    assert scheduler_is_active(cluster.run)  # no round has ended, nor begun
    heartbeat.stop()
    thread.join()
    assert not scheduler_is_active(cluster.run)
    now = iter([0.0, HUNG_SECONDS - 1, HUNG_SECONDS])
    before = ledger.lease()
    Heartbeat(ledger, epoch, lambda: next(now)).run()  # returns
    assert ledger.lease().beats == before.beats + 1


def test_a_fenced_scheduler_stops_beating(cluster: Cluster) -> None:
    epoch = cluster.run.ledger.take_lease("old")
    cluster.run.ledger.take_lease("new")
    Heartbeat(cluster.run.ledger, epoch).run()  # returns
    assert cluster.run.ledger.lease().beats == 0
