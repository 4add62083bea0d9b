"""A clock that jumps: times are informational, and the ledger defines the order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from s3t_ray.audit.verify import verify
from s3t_ray.config.location import locate
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import DeletionState
from s3t_ray.proof.run_log import verify_chain
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from s3t_ray.store.store import Store
from tests.fakes import Cluster, small_config


def jumping() -> Callable[[], datetime]:
    """An hour back at every look, and a day forward at every seventh."""
    looks = 0
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def clock() -> datetime:
        nonlocal looks, now
        looks += 1
        now += timedelta(days=1) if looks % 7 == 0 else timedelta(hours=-1)
        return now

    return clock


def test_a_clock_that_jumps_back_turns_no_time_back(folder: Path) -> None:
    config = small_config(folder)
    Cluster(config).run.close()  # the data is read
    location = locate(config)
    run = Run(config, location, Store.open(location.storage_uri), Ledger.open(location.ledger_url, clock=jumping()))
    cluster = Cluster(config, run=run)
    receipts = []
    for name in ("r3", "r7", "r11", "r3"):
        receipts.append(deletion.accept(run, [name], []))
        cluster.settle()
    assert receipts[3].repeated and receipts[3].accepted_at == receipts[0].accepted_at
    deletions = run.ledger.deletions()
    assert [row.state for row in deletions] == [DeletionState.RESTORED] * 3
    steps = [(row.times.accepted, row.times.pruned, row.times.purged, row.times.restored) for row in deletions]
    assert all(list(times) == sorted(times, key=str) for times in steps)
    assert [event.at for event in run.ledger.events()] == sorted(event.at for event in run.ledger.events())
    verify_chain([row.text for row in run.ledger.log()], run.keys.public_key_pem, run.ledger.log_head())
    assert [made.facts.request_id for made in run.ledger.certificates()] == [
        receipt.request_id for receipt in receipts[:3]
    ]
    assert all(deletion.age_seconds >= 0 for deletion in status(run).deletions)
    assert [event.seq for event in run.ledger.events()] == sorted(event.seq for event in run.ledger.events())
    assert verify(run).problems == ()


def test_a_monotonic_clock_that_stands_still_or_jumps_back_delays_and_never_ends_a_retry(folder: Path) -> None:
    """As on a machine that was asleep, or moved."""
    failures = iter(["once", "twice"])
    cluster = Cluster(small_config(folder), fail=lambda job: next(failures, None))
    for now in (0.0, 0.5, -100.0, -100.0, 3.0, 3.0):
        cluster.now = now
        cluster.scheduler.tick(0)
    cluster.settle()
    assert status(cluster.run).settled and not cluster.scheduler.retries.given_up
