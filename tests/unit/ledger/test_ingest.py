"""A run's records: all or nothing, streamed, each id once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest

from s3t_ray.errors import DataError, LedgerError
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.lthash import LtHash16
from s3t_ray.ledger.rows import record_rows
from s3t_ray.ledger.values import DuplicateRecord, RecordEntry
from tests.unit.ledger.world import PER_SLICE, PLACES, RUN, digest, entries, entry, name, record


def test_all_slices_are_there_with_their_digests(empty: Ledger) -> None:
    kept = [row for row in entries() if (row.shard, row.slice) != (1, 2)]
    states = empty.ingest(RUN, kept)
    assert [(state.shard, state.slice) for state in states] == list(PLACES)
    for state in states:
        lthash = LtHash16()
        if (state.shard, state.slice) != (1, 2):
            lthash.add(digest(state.shard, state.slice, number) for number in range(PER_SLICE))
        assert (state.records, state.digest) == (lthash.members, lthash.digest())
        assert (state.file, state.file_sha256, state.file_digest) == (None, None, None)
    assert tuple(states) == empty.slices()
    assert empty.slices(1) == tuple(states[4:])
    assert [event.kind for event in empty.events()] == ["ingested"]


def test_the_order_of_the_stream_does_not_count(empty: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_rows, "BATCH", 5)
    expected: dict[tuple[int, int], LtHash16] = {}
    for row in entries():
        expected.setdefault((row.shard, row.slice), LtHash16()).add([row.digest])
    states = empty.ingest(RUN, reversed(list(entries())))
    assert {(s.shard, s.slice): s.digest for s in states} == {
        place: value.digest() for place, value in expected.items()
    }


@pytest.mark.parametrize("batch", [1, 4, 1000])
def test_repeated_ids_refuse_everything(empty: Ledger, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """In one batch or far apart, with equal content or not: counted to the end, the first one named."""
    monkeypatch.setattr(record_rows, "BATCH", batch)
    rows = list(entries())
    moved = replace(rows[2], shard=1, slice=2, content_hmac=name("content", "other"))
    with pytest.raises(DuplicateRecord) as caught:
        empty.ingest(RUN, [*rows[:9], rows[5], *rows[9:], moved, rows[5]])
    assert caught.value.id_hmac == rows[5].id_hmac
    assert caught.value.problem.startswith("3 of the records repeat")
    assert rows[5].id_hmac.hex() in caught.value.problem
    assert empty.run() is None
    assert (empty.slices(), empty.events()) == ((), ())
    assert len(empty.ingest(RUN, rows)) == len(PLACES)


def test_a_duplicate_survives_pickling() -> None:
    error = copy.copy(DuplicateRecord(b"x" * 32, "twice", "once"))  # by the same protocol
    assert isinstance(error, DataError)
    assert (error.id_hmac, error.problem, error.fix) == (b"x" * 32, "twice", "once")


def test_a_stream_that_breaks_leaves_nothing(empty: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_rows, "BATCH", 3)

    def broken() -> Iterator[RecordEntry]:
        yield from list(entries())[:10]
        raise DataError("row 11 is malformed", "correct it")

    with pytest.raises(DataError, match="row 11"):
        empty.ingest(RUN, broken())
    assert empty.run() is None
    assert len(empty.ingest(RUN, entries())) == len(PLACES)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (entry("x", 2, 0), "shard 2, slice 0"),
        (entry("x", 0, 3), "shard 0, slice 3"),
        (entry("x", -1, 1), "shard -1, slice 1"),
        (replace(entry("x", 0, 0), id_hmac=b"short"), "id HMAC of 5 bytes"),
        (replace(entry("x", 0, 0), digest=b"short"), "digest of 5"),
    ],
)
def test_entries_that_do_not_fit(empty: Ledger, row: RecordEntry, reason: str) -> None:
    with pytest.raises(LedgerError, match=reason):
        empty.ingest(RUN, [*entries(), row])
    assert empty.run() is None


def test_one_run_a_ledger(ledger: Ledger) -> None:
    before = ledger.slices()
    with pytest.raises(LedgerError, match="already has run 'tiny'"):
        ledger.ingest(replace(RUN, name="other"), entries())
    assert ledger.run() == RUN
    assert ledger.slices() == before


def test_a_run_needs_slices(empty: Ledger) -> None:
    with pytest.raises(LedgerError, match="got 2 and 0"):
        empty.ingest(replace(RUN, slices=0), [])


def test_wrong_keys_are_refused(ledger: Ledger) -> None:
    ledger.check_key(RUN.key_check)
    with pytest.raises(LedgerError, match=r"check value f00.*not those of run 'tiny'.*\n.*keys\.dir"):
        ledger.check_key("f00")


def test_without_a_run_nothing_can_be_deleted(empty: Ledger) -> None:
    for ask in (empty.preview, empty.accept_deletion):
        with pytest.raises(LedgerError, match="no run yet"):
            ask([record(0, 0, 0)])
    with pytest.raises(LedgerError, match="no run yet"):
        empty.check_key("f00")
