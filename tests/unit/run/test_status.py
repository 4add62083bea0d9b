"""`s3t status` from outside the scheduler's process: what trains now, from its notes in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3t_ray.ledger.values import RunningStage
from s3t_ray.run.run import Run
from s3t_ray.run.status import NOTES_HOLD_SECONDS, noted, status
from s3t_ray.scheduler.running_stages import SECONDS_BETWEEN, Notes
from tests.fakes import Cluster, fake_base, small_config, write_records


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    fake_base(tmp_path / "base")
    write_records(tmp_path / "data.jsonl", [(f"r{number}", None) for number in range(30)])
    return Cluster(small_config(tmp_path))


def in_training(cluster: Cluster, shard: int = 0) -> RunningStage:
    plan = cluster.scheduler.views[shard].plan
    stage = plan.stages[plan.chains[0][0]]
    return RunningStage(
        stage_id=stage.id, shard=shard, slices=stage.slices, group=0, step=3, steps=8, loss=1.5, tokens_per_second=9.0
    )


def test_another_process_sees_what_trains(cluster: Cluster) -> None:
    stage = in_training(cluster)
    Notes(cluster.run.ledger, cluster.run.ledger.lease().epoch).look([stage])
    with Run.open(cluster.run.location.storage_uri) as elsewhere:
        seen = status(elsewhere)
    assert seen.running == (stage,)
    assert [(shard.running, shard.queued) for shard in seen.shards] == [(1, 5), (0, 6)]


def test_what_has_ended_since_the_note_is_not_shown(cluster: Cluster) -> None:
    Notes(cluster.run.ledger, cluster.run.ledger.lease().epoch).look([in_training(cluster)])
    cluster.settle()
    assert status(cluster.run).running == ()


def test_a_note_of_a_scheduler_that_is_gone_is_not_shown(cluster: Cluster) -> None:
    Notes(cluster.run.ledger, cluster.run.ledger.lease().epoch).look([in_training(cluster)])
    notes, now = cluster.run.ledger.running(), datetime.now(UTC)
    assert noted(notes, now)
    assert noted(notes, now + timedelta(seconds=NOTES_HOLD_SECONDS + 1)) == ()


def test_notes_are_written_by_the_clock(cluster: Cluster) -> None:
    ledger, stage = cluster.run.ledger, in_training(cluster)
    now = 0.0
    notes = Notes(ledger, ledger.lease().epoch, lambda: now)
    notes.look([stage])
    notes.look([])
    assert len(ledger.running()) == 1, "too soon after the one before"
    now = SECONDS_BETWEEN
    notes.look([])
    assert ledger.running() == ()
    before = ledger.lease()
    now = 3 * SECONDS_BETWEEN
    ledger.take_lease("another")
    notes.look([])  # nothing to say, and nothing said: it would have been fenced
    assert ledger.lease().epoch == before.epoch + 1
