"""Fencing: only the newest scheduler can write; deletions are never refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.rows.failure_rows import FailedStage
from s3t_ray.ledger.values import DeletionState, Fenced, SchedulerLease
from tests.unit.ledger.certify import CIRCUMSTANCES, opened
from tests.unit.ledger.world import adapter, digests, plan, purge, record, train_all


def test_epochs_count_up(ledger: Ledger, url: str) -> None:
    assert ledger.lease() == SchedulerLease(0, "", 0)
    assert [ledger.take_lease("one"), ledger.take_lease("two")] == [1, 2]
    assert [ledger.beat(2), ledger.beat(2)] == [1, 2]
    with opened(url) as other:
        assert other.lease() == SchedulerLease(2, "two", 2)
        assert other.take_lease("three") == 3
    assert ledger.lease() == SchedulerLease(3, "three", 0)


def test_whoever_was_replaced_writes_nothing(ledger: Ledger) -> None:
    old = ledger.take_lease("old")
    train_all(ledger, old)
    pruned = ledger.accept_deletion([record(0, 2, 0)]).receipt
    purged = ledger.accept_deletion([record(1, 0, 0)]).receipt
    purge(ledger, old, purged.request_id)
    ledger.accept_deletion([record(0, 1, 0)])
    wanted = plan(ledger, 0)
    stage = wanted.stages[wanted.chains[1][0]]
    live = ledger.stages()[0].id
    slice_2 = ledger.slices(0)[2]
    ledger.take_lease("new")
    attempts: list[Callable[[int], object]] = [
        lambda epoch: ledger.accept_stage(epoch, stage, adapter(stage), digests(ledger, 0)),
        lambda epoch: ledger.advance(epoch, pruned.request_id, DeletionState.PRUNED),
        lambda epoch: ledger.mark_stale(epoch, [live]),
        lambda epoch: ledger.mark_purged(epoch, []),
        lambda epoch: ledger.set_slice_file(epoch, 0, 2, "file", "c" * 64, slice_2.digest),
        lambda epoch: ledger.record_failure(epoch, FailedStage(stage.id), "error"),
        lambda epoch: ledger.certify(epoch, purged.request_id, CIRCUMSTANCES, final=True),
        ledger.beat,
    ]
    state = ledger.stages(), ledger.slices(), ledger.deletions(), ledger.events(), ledger.lease()
    for attempt in attempts:
        for epoch in (old, 0, 99):
            with pytest.raises(Fenced, match=f"epoch {epoch} is fenced: epoch 2 has the lease, held by 'new'"):
                attempt(epoch)
    assert (ledger.stages(), ledger.slices(), ledger.deletions(), ledger.events(), ledger.lease()) == state
    ledger.accept_deletion([record(0, 0, 0)])
    ledger.add_event("note", None, {})
    for attempt in attempts[:1] + attempts[3:]:
        attempt(2)


def test_threads_share_a_ledger(ledger: Ledger) -> None:
    names = [record(shard, index, number) for shard in (0, 1) for index in (0, 1, 2) for number in (2, 3)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda one: ledger.accept_deletion([one]), names))
    assert {row.receipt for row in ledger.deletions()} == {answer.receipt for answer in answers}
    assert [state.records for state in ledger.slices()] == [4, 2, 2, 2, 2, 2, 2]


def test_being_fenced_survives_pickling() -> None:
    error = copy.copy(Fenced("problem", "fix"))  # by the same protocol
    assert (type(error), error.problem, error.fix) == (Fenced, "problem", "fix")


def test_events_are_told_in_order(ledger: Ledger) -> None:
    before = ledger.events()[-1].seq
    made = [ledger.add_event("depths", shard, {"b": [1, 2], "a": "é"}) for shard in (0, None, 1)]
    assert ledger.events(after=before) == tuple(made)
    assert ledger.events(after=made[1].seq) == (made[2],)
    assert made[0].detail == '{"a":"é","b":[1,2]}'
    assert json.loads(made[0].detail) == {"a": "é", "b": [1, 2]}
