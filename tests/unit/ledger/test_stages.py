"""Stages are accepted only while they follow from the data, and live only while their ancestors are live."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.rows.failure_rows import FailedPurge, FailedServing, FailedStage, FailureRow, parse_subject
from s3t_ray.ledger.values import Published, StageState
from s3t_ray.plan.stages import Stage, plan_shard
from tests.unit.ledger.world import Clock, adapter, digests, plan, purge, record, train, train_all


def chain(ledger: Ledger, order: tuple[int, ...] = (0, 1, 2), shard: int = 0) -> list[Stage]:
    """The stages of one order, shallowest first."""
    wanted = plan(ledger, shard, (order,))
    return [wanted.stages[name] for name in wanted.chains[0]]


@pytest.fixture
def epoch(ledger: Ledger) -> int:
    return ledger.take_lease("me")


def test_an_accepted_stage_is_there_as_it_was(ledger: Ledger, epoch: int) -> None:
    stages = chain(ledger, (2, 0, 1), shard=1)
    train(ledger, epoch, stages)
    rows = ledger.stages()
    assert [(row.id, row.shard, row.slices, row.ancestors) for row in rows] == [
        (stage.id, 1, stage.slices, stage.ancestors) for stage in stages
    ]
    assert [row.adapter_sha256 for row in rows] == [adapter(stage) for stage in stages]
    assert {(row.state, row.pruned_by) for row in rows} == {(StageState.LIVE, None)}
    assert [row.depth for row in rows] == [1, 2, 3]
    assert [row.accepted_at for row in rows] == sorted(row.accepted_at for row in rows)
    assert ledger.stages(shard=0) == ledger.stages(state=StageState.STALE) == ()
    told = [json.loads(event.detail) for event in ledger.events() if event.kind == "stage_accepted"]
    assert [line["stage"] for line in told] == [stage.id for stage in stages]


def test_accepting_twice_is_accepting_once(ledger: Ledger, epoch: int) -> None:
    train(ledger, epoch, chain(ledger))
    before = ledger.stages(), ledger.events()
    train(ledger, epoch, chain(ledger))
    assert (ledger.stages(), ledger.events()) == before


def test_other_bytes_for_a_live_stage_are_refused(ledger: Ledger, epoch: int) -> None:
    (first, *_) = chain(ledger)
    train(ledger, epoch, [first])
    with pytest.raises(LedgerError, match=f"{first.id} is live with adapter {adapter(first)}"):
        ledger.accept_stage(epoch, first, "f" * 64, digests(ledger, 0))
    assert ledger.stages()[0].adapter_sha256 == adapter(first)


def test_a_deletion_during_training_refuses_the_stage(ledger: Ledger, epoch: int) -> None:
    """However late it comes, and whichever of its slices was hit; other slices do not matter."""
    stages = chain(ledger)
    train(ledger, epoch, stages[:1])
    trained_on = digests(ledger, 0)
    ledger.accept_deletion([record(0, 2, 0)])
    assert ledger.accept_stage(epoch, stages[1], adapter(stages[1]), trained_on)
    assert not ledger.accept_stage(epoch, stages[2], adapter(stages[2]), trained_on)
    ledger.accept_deletion([record(0, 0, 0)])
    for stage in stages:
        assert not ledger.accept_stage(epoch, stage, adapter(stage), trained_on)
    assert ledger.stages(state=StageState.LIVE) == ()


def test_digests_of_today_do_not_pass_a_stage_of_yesterday(ledger: Ledger, epoch: int) -> None:
    """The id tells what it was trained on, whatever the caller says."""
    (first, *_) = chain(ledger)
    ledger.accept_deletion([record(0, 0, 0)])
    assert not ledger.accept_stage(epoch, first, adapter(first), digests(ledger, 0))


def test_every_slice_it_was_trained_on_counts(ledger: Ledger, epoch: int) -> None:
    """Also an earlier one, which the stage's own id does not show."""
    first, second, _ = chain(ledger)
    train(ledger, epoch, [first])
    trained_on = digests(ledger, 0)
    assert not ledger.accept_stage(epoch, second, adapter(second), {**trained_on, 0: "e" * 64})
    assert ledger.accept_stage(epoch, second, adapter(second), trained_on)


def test_another_recipe_is_refused(ledger: Ledger, epoch: int) -> None:
    other = plan_shard(0, ((0, 1, 2),), digests(ledger, 0), "f" * 64)
    stage = other.stages[other.chains[0][0]]
    assert not ledger.accept_stage(epoch, stage, adapter(stage), digests(ledger, 0))


def test_without_a_live_parent_it_is_refused(ledger: Ledger, epoch: int) -> None:
    first, second, third = chain(ledger)
    assert not ledger.accept_stage(epoch, second, adapter(second), digests(ledger, 0))
    train(ledger, epoch, [first, second])
    ledger.mark_stale(epoch, [second.id])
    assert not ledger.accept_stage(epoch, third, adapter(third), digests(ledger, 0))
    # A stage with the parent of another is not one of the plan.
    mixed = replace(second, slices=(1, 0))
    assert not ledger.accept_stage(epoch, mixed, adapter(mixed), digests(ledger, 0))


def test_a_stage_that_went_can_come_back(ledger: Ledger, epoch: int) -> None:
    """Taken out of service, erased, trained again: by the same checks as the first time."""
    first, second, _ = stages = chain(ledger)
    train(ledger, epoch, stages[:2])
    for purged in (False, True):
        assert ledger.mark_stale(epoch, [second.id]) == (second.id,)
        if purged:
            ledger.mark_purged(epoch, [second.id])
        assert ledger.accept_stage(epoch, second, "e" * 64, digests(ledger, 0))
        assert [(row.id, row.state) for row in ledger.stages()] == [
            (first.id, StageState.LIVE),
            (second.id, StageState.LIVE),
        ]
        assert ledger.stages()[1].adapter_sha256 == "e" * 64


def test_a_stage_taken_out_takes_those_on_top_with_it(ledger: Ledger, epoch: int) -> None:
    train_all(ledger, epoch)
    wanted = plan(ledger, 0)
    second = wanted.chains[0][1]
    assert ledger.mark_stale(epoch, [second]) == wanted.chains[0][1:]
    assert {row.id for row in ledger.stages(0, StageState.LIVE)} == set(wanted.stages) - set(wanted.chains[0][1:])
    assert {row.state for row in ledger.stages(1)} == {StageState.LIVE}
    assert {row.pruned_by for row in ledger.stages()} == {None}
    assert ledger.mark_stale(epoch, [second]) == ()


def test_purging(ledger: Ledger, epoch: int) -> None:
    first, second, _ = stages = chain(ledger)
    train(ledger, epoch, stages)
    receipt = ledger.accept_deletion([record(0, 1, 0)]).receipt
    with pytest.raises(LedgerError, match=f"stage {first.id} is live"):
        ledger.mark_purged(epoch, [second.id, first.id])
    assert [row.state for row in ledger.stages()] == [StageState.LIVE, StageState.STALE, StageState.STALE]
    for _ in range(2):
        ledger.mark_purged(epoch, receipt.stages)
        assert [row.state for row in ledger.stages()] == [StageState.LIVE, StageState.PURGED, StageState.PURGED]
    assert ledger.stages()[1].pruned_by == receipt.request_id
    assert [event.kind for event in ledger.events()].count("stage_purged") == 2
    ledger.mark_purged(epoch, [])
    for ask in (ledger.mark_purged, ledger.mark_stale):
        with pytest.raises(LedgerError, match="1 stages were never accepted, the first is nobody"):
            ask(epoch, [first.id, "nobody"])


def test_what_stands_is_what_the_rows_say(ledger: Ledger, epoch: int) -> None:
    """The lean answers that a scheduler reads many times a second, against the rows themselves."""

    def check(shard: int) -> None:
        rows = ledger.stages(shard)
        live, stale = ledger.standing(shard)
        assert live == {row.id for row in rows if row.state is StageState.LIVE}
        assert stale == {row.id for row in rows if row.state is StageState.STALE}

    orders = ((0, 1, 2), (1, 2, 0))
    assert not ledger.ever_trained(0, orders)
    train(ledger, epoch, chain(ledger))
    assert ledger.ever_trained(0, orders[:1]) and not ledger.ever_trained(0, orders)
    train_all(ledger, epoch)
    check(0)
    request = ledger.accept_deletion([record(0, 2, 0)]).receipt.request_id
    check(0)
    check(1)
    purge(ledger, epoch, request)
    check(0)
    assert ledger.standing(0)[1] == frozenset() != ledger.standing(0)[0]
    assert ledger.ever_trained(0, orders), "what was trained once stays known"
    assert not ledger.ever_trained(0, ((2, 1, 0),)) and not ledger.ever_trained(1, ((2, 1, 0),))


def test_malformed_stages_are_refused(ledger: Ledger, epoch: int) -> None:
    first, second, _ = chain(ledger)
    for stage, reason in (
        (replace(first, shard=-1, slices=(0,)), "of shard -1, but the run has 2"),
        (replace(first, shard=2), "of shard 2"),
        (replace(second, ancestors=()), "2 slices and 0 ancestors"),
        (replace(first, slices=()), "0 slices and 0 ancestors"),
    ):
        with pytest.raises(LedgerError, match=reason):
            ledger.accept_stage(epoch, stage, "f" * 64, digests(ledger, 0))
    with pytest.raises(LedgerError, match=r"lacks the digests of slices \[1\]"):
        ledger.accept_stage(epoch, second, "f" * 64, {0: "x"})
    assert ledger.stages() == ()


def test_failures_count_until_the_stage_is_accepted(ledger: Ledger, epoch: int, clock: Clock) -> None:
    first, second, _ = chain(ledger)
    one, other = FailedStage(first.id), FailedStage(second.id)
    ledger.record_failure(epoch, one, "out of memory")
    ledger.record_failure(epoch, other, "a \0 and a \ud800")
    ledger.record_failure(epoch, one, "again " * 1000)
    failures = {failure.subject: failure for failure in ledger.failures()}
    assert len(failures) == 2
    assert failures[one] == FailureRow(one, 2, ("again " * 1000)[:2000], failures[one].at)
    assert failures[one].at > failures[other].at
    train(ledger, epoch, [first])
    assert [failure.subject for failure in ledger.failures()] == [other]
    assert ledger.failures()[0].error == "a   and a ?"


def test_what_failed_has_a_text_that_older_ledgers_hold_too(ledger: Ledger, epoch: int) -> None:
    """These texts are keys of rows: another text would lose the failures of every ledger that is there."""
    texts = {FailedStage("ab" * 32): "ab" * 32, FailedPurge(3): "purge 3", FailedPurge(-1): "purge -1"}
    for subject, text in {**texts, FailedServing(): "serving"}.items():
        assert str(subject) == text and parse_subject(text) == subject
        ledger.record_failure(epoch, subject, "no answer")
    assert {row.subject for row in ledger.failures()} == {*texts, FailedServing()}
    ledger.forget_failure(epoch, FailedPurge(3))
    assert FailedPurge(3) not in {row.subject for row in ledger.failures()}
    for unknown in ("", "purge ", "purge three", "a b"):
        with pytest.raises(LedgerError, match="not a stage"):
            parse_subject(unknown)


def test_many_are_decided_in_one_transaction_or_none_is(ledger: Ledger, epoch: int) -> None:
    wanted = plan(ledger, 0)
    first, other = (wanted.stages[chain[0]] for chain in wanted.chains)
    second = wanted.stages[wanted.chains[0][1]]
    trained_on = digests(ledger, 0)
    changed = {**trained_on, other.slices[0]: "e" * 64}
    published = [
        Published(first, adapter(first), trained_on),
        Published(other, adapter(other), changed),  # its data has changed: refused, and the rest goes on
        Published(second, adapter(second), trained_on),  # its parent is accepted just before it
    ]
    assert ledger.accept_stages(epoch, published) == (True, False, True)
    assert [row.id for row in ledger.stages()] == [first.id, second.id]
    before = ledger.events()
    other_bytes = Published(second, "f" * 64, trained_on)
    with pytest.raises(LedgerError, match="other bytes"):
        ledger.accept_stages(epoch, [Published(other, adapter(other), trained_on), other_bytes])
    assert [row.id for row in ledger.stages()] == [first.id, second.id] and ledger.events() == before
