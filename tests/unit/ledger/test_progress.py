"""From the receipt to `purged`: forward only, one step at a time, and never an untrue one."""

from __future__ import annotations

from datetime import timedelta
from itertools import product

import pytest

from s3t_ray.errors import LedgerError
from s3t_ray.ledger import deletion_progress
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.tables import RECORDS
from s3t_ray.ledger.values import DeletionState, StageState
from tests.unit.ledger.certify import certify
from tests.unit.ledger.world import Clock, digest, digests, name, purge, record, train_all, write_files

ACCEPTED, PRUNED, PURGED, RESTORED = DeletionState


def bring(ledger: Ledger, epoch: int, request_id: str, state: DeletionState) -> None:
    """From accepted to `state`."""
    if state is PRUNED:
        ledger.advance(epoch, request_id, PRUNED)
    if state.rank >= PURGED.rank:
        purge(ledger, epoch, request_id)
    if state is RESTORED:
        certify(ledger, epoch, request_id)


@pytest.mark.parametrize(("start", "target"), list(product(DeletionState, DeletionState)))
def test_only_the_next_step_moves(ledger: Ledger, start: DeletionState, target: DeletionState) -> None:
    epoch = ledger.take_lease("me")
    request = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    bring(ledger, epoch, request, start)
    write_files(ledger, epoch)
    before, events = ledger.deletion(request), len(ledger.events())
    assert before.state is start
    if target is start:
        ledger.advance(epoch, request, target)
        assert (ledger.deletion(request), len(ledger.events())) == (before, events)
    elif target.rank == start.rank + 1 and target is not RESTORED:
        ledger.advance(epoch, request, target)
        assert ledger.deletion(request).state is target
        assert ledger.deletions(target) == (ledger.deletion(request),)
        assert ledger.deletions(start) == ()
    else:
        with pytest.raises(LedgerError, match="certificate" if target is RESTORED else f"cannot move to {target}"):
            ledger.advance(epoch, request, target)
        assert (ledger.deletion(request), len(ledger.events())) == (before, events)


def test_each_step_has_its_time(ledger: Ledger, clock: Clock) -> None:
    epoch = ledger.take_lease("me")
    request = ledger.accept_deletion([record(0, 0, 0)]).receipt
    clock.time += timedelta(days=1)
    ledger.advance(epoch, request.request_id, PRUNED)
    times = ledger.deletion(request.request_id).times
    assert times.accepted == request.accepted_at == "2030-01-01T00:00:0" + request.accepted_at[18:]
    assert times.pruned is not None
    assert times.pruned.startswith("2030-01-02T00:00:")
    assert times.pruned.endswith(".000000+00:00") or times.pruned.endswith("+00:00")
    assert (times.purged, times.restored) == (None, None)


def test_a_clock_that_jumps_back_turns_no_time_back(ledger: Ledger, clock: Clock) -> None:
    epoch = ledger.take_lease("me")
    first = ledger.accept_deletion([record(0, 0, 0)]).receipt
    clock.time -= timedelta(days=400)
    second = ledger.accept_deletion([record(0, 0, 1)]).receipt
    assert second.accepted_at == first.accepted_at
    purge(ledger, epoch, first.request_id)
    purge(ledger, epoch, second.request_id)
    assert [row.receipt for row in ledger.deletions()] == [first, second]
    sequence = [event.seq for event in ledger.events()]
    assert sequence == sorted(set(sequence))
    assert [event.at for event in ledger.events()] == sorted(event.at for event in ledger.events())


def test_deletions_read_again_show_where_they_stand_now(
    ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Receipts are kept by who has read them once; states are not."""
    monkeypatch.setattr(deletion_progress, "MOST_RECEIPTS", 3)
    epoch = ledger.take_lease("me")
    for number in range(1, 4):
        request = ledger.accept_deletion([record(0, 0, number), record(1, 2, number)]).receipt.request_id
        ledger.deletions()
        ledger.advance(epoch, request, DeletionState.PRUNED)
    assert ledger.accept_deletion([record(0, 1, 0)]).receipt
    with Ledger.open(url) as other:
        assert ledger.deletions() == other.deletions()
        for state in DeletionState:
            assert ledger.deletions(state) == other.deletions(state)
    assert [row.state for row in ledger.deletions()] == [DeletionState.PRUNED] * 3 + [DeletionState.ACCEPTED]


def test_unknown_requests_are_refused(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    for ask in (lambda: ledger.advance(epoch, "nobody", PRUNED), lambda: ledger.deletion("nobody")):
        with pytest.raises(LedgerError, match="no deletion 'nobody'"):
            ask()


def test_not_purged_while_a_file_may_hold_the_rows(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    with_rows = digests(ledger, 0)[0]
    request = ledger.accept_deletion([record(0, 0, 0), record(-1, 0, 0)]).receipt.request_id
    ledger.advance(epoch, request, PRUNED)
    with pytest.raises(LedgerError, match=r"shard -1, slice 0 \(none recorded\) may hold its rows"):
        ledger.advance(epoch, request, PURGED)
    (held_out,) = ledger.slices(-1)
    ledger.set_slice_file(epoch, -1, 0, "new", "c" * 64, held_out.digest)
    ledger.set_slice_file(epoch, 0, 0, "old", "c" * 64, with_rows)
    with pytest.raises(LedgerError, match=r"shard 0, slice 0 \(old\)"):
        ledger.advance(epoch, request, PURGED)
    ledger.set_slice_file(epoch, 0, 0, "new", "c" * 64, digests(ledger, 0)[0])
    ledger.advance(epoch, request, PURGED)


def test_not_purged_while_a_stage_that_saw_it_is_left(ledger: Ledger) -> None:
    """Also one that another deletion had made stale."""
    epoch = ledger.take_lease("me")
    train_all(ledger, epoch)
    ledger.accept_deletion([record(0, 0, 0)])
    second = ledger.accept_deletion([record(0, 1, 0)]).receipt
    ledger.advance(epoch, second.request_id, PRUNED)
    write_files(ledger, epoch)
    stale = [row.id for row in ledger.stages(state=StageState.STALE)]
    ledger.mark_purged(epoch, [row.id for row in ledger.stages() if row.id in second.stages])
    assert len(second.stages) < len(stale)
    with pytest.raises(LedgerError, match="stages that saw its records are left"):
        ledger.advance(epoch, second.request_id, PURGED)
    ledger.mark_purged(epoch, stale)
    ledger.advance(epoch, second.request_id, PURGED)


def test_stages_trained_since_do_not_hold_it_up(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    train_all(ledger, epoch)
    request = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    train_all(ledger, epoch)
    purge(ledger, epoch, request)
    assert len(ledger.stages(0, StageState.LIVE)) == 6


def test_it_does_not_pass_the_deletion_that_did_its_work(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    first = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    again = ledger.accept_deletion([record(0, 0, 0), name("id", "x")]).receipt.request_id
    write_files(ledger, epoch)
    for state in (PRUNED, PURGED):
        assert ledger.deletion(again).waits_for == (first,)
        with pytest.raises(LedgerError, match=f"names records of the earlier deletion {first}"):
            ledger.advance(epoch, again, state)
        ledger.advance(epoch, first, state)
        assert ledger.deletion(again).waits_for == ()
        ledger.advance(epoch, again, state)
    assert ledger.deletion(again).waits_for == (first,)
    with pytest.raises(LedgerError, match="names records of"):
        certify(ledger, epoch, again)
    certify(ledger, epoch, first)
    certify(ledger, epoch, again)
    assert ledger.deletion(again).waits_for == ()


def test_a_purge_erases_what_the_ledger_made_of_the_content(ledger: Ledger) -> None:
    """The HMACs of id and subject stay: a repeat must be known as one."""
    epoch = ledger.take_lease("me")
    first = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    ledger.accept_deletion([record(0, 0, 1)])
    purge(ledger, epoch, first)
    with ledger._database.read() as connection:
        rows = {row.id_hmac: row for row in connection.execute(RECORDS.select())}
    gone = rows[record(0, 0, 0)]
    assert (gone.digest, gone.content_hmac, gone.subject_hmac) == (None, None, name("subject", "ann"))
    for other in (record(0, 0, 1), record(0, 0, 2), record(1, 0, 0)):
        assert None not in (rows[other].digest, rows[other].content_hmac)
    assert ledger.tombstones(0, 0) == frozenset()
    assert ledger.preview([record(0, 0, 0)]).already_deleted == 1


def test_tombstones_last_until_a_clean_file(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    write_files(ledger, epoch)
    states = [ledger.slices(0)[1]]
    for number in range(3):
        ledger.accept_deletion([record(0, 1, number)])
        states.append(ledger.slices(0)[1])
    assert ledger.tombstones(0, 1) == {digest(0, 1, number) for number in range(3)}
    assert ledger.tombstones(0, 0) == frozenset()
    assert states[3].file_digest == states[0].digest != states[3].digest
    # A file written while the third deletion came in.
    ledger.set_slice_file(epoch, 0, 1, "second", "d" * 64, states[2].digest)
    assert ledger.tombstones(0, 1) == {digest(0, 1, 2)}
    now = ledger.slices(0)[1]
    assert (now.file, now.file_sha256, now.file_digest) == ("second", "d" * 64, states[2].digest)
    with pytest.raises(LedgerError, match="first holds older rows of shard 0, slice 1 than second"):
        ledger.set_slice_file(epoch, 0, 1, "first", "d" * 64, states[1].digest)
    ledger.set_slice_file(epoch, 0, 1, "third", "d" * 64, states[3].digest)
    assert ledger.tombstones(0, 1) == frozenset()


def test_a_file_of_other_rows_is_refused(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    for index, file_digest in ((0, "e" * 64), (0, ledger.slices(0)[1].digest)):
        with pytest.raises(LedgerError, match="never had the digest"):
            ledger.set_slice_file(epoch, 0, index, "file", "c" * 64, file_digest)
    with pytest.raises(LedgerError, match="no slice 7 in shard 0"):
        ledger.set_slice_file(epoch, 0, 7, "file", "c" * 64, "e" * 64)
    with pytest.raises(LedgerError, match="no slice 0 in shard 9"):
        ledger.tombstones(9, 0)
