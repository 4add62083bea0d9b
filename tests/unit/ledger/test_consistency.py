"""Editing a row of the ledger by hand contradicts another row: each kind of edit is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Connection, text

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import RecordState
from tests.unit.ledger.certify import certify
from tests.unit.ledger.test_closure import SKETCHING, story
from tests.unit.ledger.world import RUN, digest, name, purge, record, train_all

FIRST = "(SELECT min(sequence) FROM s3t_deletions)"
SECOND = "(SELECT sequence FROM s3t_deletions ORDER BY sequence LIMIT 1 OFFSET 1)"
THIRD = "(SELECT max(sequence) FROM s3t_deletions)"
LIVE = "(SELECT id FROM s3t_stages WHERE state = 'live' ORDER BY accepted LIMIT 1)"
GONE = "(SELECT id FROM s3t_stages WHERE state = 'purged' ORDER BY accepted LIMIT 1)"


@pytest.fixture
def lived(ledger: Ledger) -> Ledger:
    """Two deletions restored, of one slice; a third accepted."""
    epoch = ledger.take_lease("me")
    train_all(ledger, epoch)
    for number in (1, 2):
        request = ledger.accept_deletion([record(0, 1, number)]).receipt.request_id
        purge(ledger, epoch, request)
        train_all(ledger, epoch)
        certify(ledger, epoch, request)
    ledger.accept_deletion([record(0, 1, 0), record(1, 0, 0)])
    return ledger


def test_an_untouched_ledger_agrees_with_itself(lived: Ledger, ledger: Ledger) -> None:
    assert lived.contradictions() == ()


def test_a_ledger_agrees_at_every_step(empty: Ledger) -> None:
    assert empty.contradictions() == ()
    empty.ingest(RUN, story(), SKETCHING)
    assert empty.contradictions() == ()
    epoch = empty.take_lease("me")
    train_all(empty, epoch)
    request = empty.accept_deletion([name("id", "a")]).receipt.request_id
    assert empty.contradictions() == ()
    purge(empty, epoch, request)
    assert empty.contradictions() == ()
    live = empty.stages()[-1].id
    empty.mark_stale(epoch, [live])
    empty.mark_purged(epoch, [live])
    assert empty.contradictions() == ()


def edit(*statements: str) -> Callable[[Connection], None]:
    def apply(connection: Connection) -> None:
        for statement in statements:
            assert connection.execute(text(statement)).rowcount, statement

    return apply


NEW_STAGE = (
    "INSERT INTO s3t_stages SELECT 'forged', shard, slices, ancestors, 'live', adapter_sha256, accepted_at, "
    f"accepted, NULL FROM s3t_stages WHERE id = {LIVE}"
)

EDITS = {
    "a tombstone is taken off a record": (
        edit(f"DELETE FROM s3t_tombstones WHERE deletion = {THIRD} AND shard = 1"),
        ["slice 0 of shard 1 should have 3 retained records, but the ledger has 4", "but 0 tombstones are left"],
    ),
    "a tombstone is put on a record": (
        edit(f"INSERT INTO s3t_tombstones SELECT shard, slice, id_hmac, {FIRST} FROM s3t_records "
             "WHERE shard = 1 AND slice = 2 AND deletion IS NULL LIMIT 1"),
        ["should have 4 retained records, but the ledger has 3", "1 tombstones belong to no deletion",
         "is restored, and the ledger still has what 1 of its records were"],
    ),
    "a tombstone comes back on a purged record": (
        edit("INSERT INTO s3t_tombstones SELECT shard, slice, id_hmac, deletion FROM s3t_records "
             f"WHERE deletion = {FIRST}"),
        ["tombstones are left, but", "the ledger still has what 1 of its records were"],
    ),
    "a tombstone moves to another slice": (
        edit(f"UPDATE s3t_tombstones SET slice = 2 WHERE deletion = {THIRD} AND shard = 1"),
        ["should have 3 retained records, but the ledger has 4", "2 tombstones are left, but 1 of them"],
    ),
    "a record's row is removed with its tombstone": (
        edit(f"DELETE FROM s3t_records WHERE deletion = {FIRST}"),
        ["took 1 records from slice 1 of shard 0, but 0 tombstones", "the run started with 28 records"],
    ),
    "a retained record is removed": (
        edit("DELETE FROM s3t_records WHERE shard = 1 AND slice = 2 AND deletion IS NULL"),
        ["should have 4 retained records, but the ledger has 0"],
    ),
    "a slice's count": (
        edit("UPDATE s3t_slices SET records = records + 1 WHERE shard = 1 AND slice = 1"),
        ["should have 5 retained records, but the ledger has 4", "its digest is not that of its sum"],
    ),
    "a slice's digest": (
        edit(f"UPDATE s3t_slices SET digest = '{'a' * 64}' WHERE shard = 0 AND slice = 1"),
        ["its digest is not that of its sum", "its digest does not follow from its deletions"],
    ),
    "what a deletion left of a slice": (
        edit(f"UPDATE s3t_hits SET digest_after = '{'a' * 64}' WHERE deletion = {FIRST}"),
        ["its digest does not follow from its deletions", "the ledger has other slices than its certificate"],
    ),
    "an erased digest comes back": (
        edit(f"UPDATE s3t_records SET digest = id_hmac WHERE deletion = {FIRST}"),
        ["is restored, and the ledger still has what 1 of its records were"],
    ),
    "a stage is made live again": (
        edit(f"UPDATE s3t_stages SET state = 'live' WHERE id = {GONE}"),
        ["but its history says purged", "saw its records and is not purged"],
    ),
    "a stage row is added": (edit(NEW_STAGE), ["stage forged is live, but no scheduler ever had it accepted"]),
    "a stage row is removed": (
        edit(f"DELETE FROM s3t_stages WHERE id = {LIVE}"),
        ["was accepted, but is no longer in the ledger"],
    ),
    "a stage's adapter": (
        edit(f"UPDATE s3t_stages SET adapter_sha256 = 'other' WHERE id = {LIVE}"),
        ["names other slices, or another adapter, than when it was accepted"],
    ),
    "a deletion's state": (
        edit(f"UPDATE s3t_deletions SET state = 'purged', pruned_at = 'x', purged_at = 'x' WHERE sequence = {THIRD}"),
        ["but its history says accepted", "the ledger still has what 2 of its records were"],
    ),
    "a deletion's count": (
        edit(f"UPDATE s3t_deletions SET records = 9 WHERE sequence = {SECOND}"),
        ["says 9 records, but its slices say 1", "other counts of records than its certificate"],
    ),
    "a deletion's time": (
        edit(f"UPDATE s3t_deletions SET pruned_at = accepted_at WHERE sequence = {SECOND}"),
        ["the ledger has other times than its certificate"],
    ),
    "a certificate is dropped": (
        edit(f"DELETE FROM s3t_log WHERE kind = 'certificate' AND deletion = {SECOND}"),
        ["is restored, but has no certificate"],
    ),
    "a certificate is given to a deletion that has none": (
        edit(f"UPDATE s3t_log SET deletion = {THIRD} WHERE kind = 'certificate' AND deletion = {SECOND}"),
        ["is restored, but has no certificate", "is accepted, but has a certificate", "other request"],
    ),
    "a certificate is no certificate": (
        edit("UPDATE s3t_log SET entry = '{}' WHERE sequence = 3"),
        ["what stands as the certificate of deletion"],
    ),
    "a line of the history is removed": (
        edit("DELETE FROM s3t_events WHERE kind = 'lease_taken'"),
        ["the history lacks 1 of its numbers, the first is 2"],
    ),
    "the history is cut off": (
        edit("UPDATE s3t_head SET sequence = sequence - 1"),
        ["lines were added"],
    ),
    "a deletion is undone whole, but for the history": (
        edit(f"DELETE FROM s3t_tombstones WHERE deletion = {THIRD}",
             f"DELETE FROM s3t_pruned WHERE deletion = {THIRD}",
             f"DELETE FROM s3t_hits WHERE deletion = {THIRD}",
             f"UPDATE s3t_stages SET state = 'live', pruned_by = NULL WHERE pruned_by = {THIRD}",
             f"DELETE FROM s3t_log WHERE deletion = {THIRD}",
             f"DELETE FROM s3t_deletions WHERE sequence = {THIRD}"),
        ["was accepted, but is no longer in the ledger", "the history lacks 1 of"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_each_edit_is_told(lived: Ledger, what: str) -> None:
    change, expected = EDITS[what]
    with lived._database.write() as tx:
        change(tx.connection)
    told = lived.contradictions()
    for part in expected:
        assert any(part in line for line in told), (part, told)


def test_what_the_ledger_says_of_records(lived: Ledger) -> None:
    ids = [record(0, 1, 1), record(0, 1, 0), record(0, 1, 3), name("id", "nobody")]
    states = lived.record_states(ids)
    assert {key for key, state in states.items() if state.content_hmac is None} == {ids[0]}, "it is purged"
    assert {key: replace(state, content_hmac=None) for key, state in states.items()} == {
        ids[0]: RecordState(None, 0, 1, True),
        ids[1]: RecordState(digest(0, 1, 0), 0, 1, True),
        ids[2]: RecordState(digest(0, 1, 3), 0, 1, False),
    }


def test_the_log_is_read_as_it_stands(lived: Ledger) -> None:
    with lived._database.write() as tx:
        tx.connection.execute(text("UPDATE s3t_log SET entry = 'no JSON' WHERE sequence = 4"))
    _, receipt, certificate, broken, *_ = lived.log()
    requests = [row.receipt.request_id for row in lived.deletions()]
    assert (certificate.sequence, certificate.request_id, broken.request_id) == (3, requests[0], requests[1])
    assert (receipt.kind, certificate.kind, broken.kind) == ("receipt", "certificate", "receipt")
    assert broken.text == "no JSON"
    assert certificate.text.startswith("{")
