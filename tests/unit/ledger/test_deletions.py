"""Accepting a deletion: what it affects, and what its only receipt says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from sqlalchemy import event

from s3t_ray.errors import DataError, LedgerError, UnknownRecords
from s3t_ray.ledger import query_batches, resolve
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.lthash import LtHash16
from s3t_ray.ledger.values import Hit, StageState
from tests.unit.ledger.certify import opened
from tests.unit.ledger.world import (
    PER_SLICE,
    PLACES,
    RUN,
    Clock,
    digest,
    entries,
    entry,
    name,
    plan,
    purge,
    record,
    train_all,
)


def test_slices_lose_exactly_the_records(ledger: Ledger) -> None:
    before = {(state.shard, state.slice): state for state in ledger.slices()}
    answer = ledger.accept_deletion([record(0, 1, 0), record(0, 1, 3), record(1, 2, 2)])
    receipt = answer.receipt
    assert receipt.hits == (Hit(0, 1, 2), Hit(1, 2, 1))
    assert (receipt.records, receipt.already_deleted, receipt.unknown) == (3, 0, 0)
    assert (answer.unknown_ids, answer.unknown_subjects, answer.repeated) == ((), (), False)
    left = {(0, 1): [1, 2], (1, 2): [0, 1, 3]}
    for state in ledger.slices():
        place = (state.shard, state.slice)
        if place not in left:
            assert state == before[place]
            continue
        lthash = LtHash16()
        lthash.add(digest(*place, number) for number in left[place])
        assert (state.records, state.digest) == (lthash.members, lthash.digest())


def test_dependent_stages_stop_being_live(ledger: Ledger) -> None:
    """Those at and after the slice's position in every sequence of the shard, and no other."""
    epoch = ledger.take_lease("me")
    train_all(ledger, epoch)
    wanted = {shard: plan(ledger, shard).stages for shard in (0, 1)}
    receipt = ledger.accept_deletion([record(0, 2, 0)]).receipt
    hit = {stage.id for stage in wanted[0].values() if 2 in stage.slices}
    assert hit
    assert set(receipt.stages) == hit
    for row in ledger.stages():
        assert row.state is (StageState.STALE if row.id in hit else StageState.LIVE)
        assert row.pruned_by == (receipt.request_id if row.id in hit else None)
    assert {row.id for row in ledger.stages(0, StageState.LIVE)} == set(wanted[0]) - hit
    assert {row.id for row in ledger.stages(1)} == set(wanted[1])


def test_subjects_name_all_their_records(ledger: Ledger) -> None:
    answer = ledger.accept_deletion([record(0, 0, 0)], [name("subject", "ann"), name("subject", "at 1.1")])
    # Ann's one a place, once though one is named twice, and record 1 of (1, 1).
    assert answer.receipt.records == len(PLACES) + 1
    assert {(hit.shard, hit.slice): hit.records for hit in answer.receipt.hits} == {
        place: 2 if place == (1, 1) else 1 for place in PLACES
    }


def test_held_out_records_hit_no_stage(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    train_all(ledger, epoch)
    receipt = ledger.accept_deletion([record(-1, 0, 2)]).receipt
    assert (receipt.hits, receipt.stages) == ((Hit(-1, 0, 1),), ())
    assert {row.state for row in ledger.stages()} == {StageState.LIVE}
    assert ledger.tombstones(-1, 0) == {digest(-1, 0, 2)}


def test_the_same_request_gets_the_same_receipt(ledger: Ledger, clock: Clock) -> None:
    """Whatever the order, the repeats, and what happened in between."""
    epoch = ledger.take_lease("me")
    train_all(ledger, epoch)
    ids = [record(0, 0, 1), record(0, 1, 1), name("id", "never seen")]
    first = ledger.accept_deletion(ids, [name("subject", "at 1.0")])
    train_all(ledger, epoch)
    purge(ledger, epoch, first.receipt.request_id)
    ledger.accept_deletion([record(1, 0, 0)])
    state, events = ledger.slices(), ledger.events()
    again = ledger.accept_deletion([*reversed(ids), ids[0]], [name("subject", "at 1.0")])
    assert again.receipt == first.receipt
    assert (again.repeated, first.repeated) == (True, False)
    assert again.unknown_ids == first.unknown_ids == (name("id", "never seen"),)
    assert (ledger.slices(), ledger.events()) == (state, events)
    assert len(ledger.deletions()) == 2


def test_ids_and_subjects_are_not_mixed_up(ledger: Ledger) -> None:
    both = [record(0, 0, 0)], [name("subject", "ann")]
    assert resolve.NamedRows.of(*both).digest != resolve.NamedRows.of(both[1], both[0]).digest
    with pytest.raises(UnknownRecords):
        ledger.accept_deletion(both[1], both[0])


def test_unknown_names_are_reported_and_the_rest_goes_on(ledger: Ledger) -> None:
    strangers = sorted(name("id", number) for number in range(3))
    answer = ledger.accept_deletion([strangers[2], record(0, 0, 0), *strangers[:2]], [name("subject", "bob")])
    assert answer.unknown_ids == tuple(strangers)
    assert answer.unknown_subjects == (name("subject", "bob"),)
    assert (answer.receipt.records, answer.receipt.unknown) == (1, 4)


def test_nothing_known_stores_nothing(ledger: Ledger) -> None:
    events = ledger.events()
    with pytest.raises(UnknownRecords, match="none of the 2 records"):
        ledger.accept_deletion([name("id", "x")], [name("subject", "x")])
    assert ledger.deletions() == ()
    assert ledger.events() == events


def test_nothing_named_is_refused(ledger: Ledger) -> None:
    for ask in (ledger.preview, ledger.accept_deletion):
        with pytest.raises(DataError, match="names no record"):
            ask([], [])
        with pytest.raises(LedgerError, match="HMACs of 32 bytes, got 5"):
            ask([b"short"])


def test_deleted_before_is_counted_not_refused(ledger: Ledger) -> None:
    first = ledger.accept_deletion([record(0, 0, 0), record(0, 0, 1)]).receipt
    second = ledger.accept_deletion([record(0, 0, 1), record(0, 0, 2)]).receipt
    assert (second.records, second.already_deleted, second.hits) == (1, 1, (Hit(0, 0, 1),))
    third = ledger.accept_deletion([record(0, 0, 1)]).receipt
    assert (third.records, third.already_deleted, third.hits, third.stages) == (0, 1, (), ())
    assert len({first.request_id, second.request_id, third.request_id}) == 3
    assert [row.waits_for for row in ledger.deletions()] == [(), (first.request_id,), (first.request_id,)]


def test_preview_says_what_would_happen(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    train_all(ledger, epoch)
    ledger.accept_deletion([record(0, 1, 0)])
    train_all(ledger, epoch)
    asked = [record(0, 1, 0), record(0, 2, 0), record(1, 0, 0), name("id", "x")], [name("subject", "y")]
    before = ledger.slices(), ledger.stages(), ledger.events()
    preview = ledger.preview(*asked)
    assert (ledger.slices(), ledger.stages(), ledger.events()) == before
    answer = ledger.accept_deletion(*asked)
    receipt = answer.receipt
    assert preview.hits == receipt.hits
    assert preview.stages == receipt.stages != ()
    assert (preview.records, preview.already_deleted) == (receipt.records, receipt.already_deleted) == (2, 1)
    assert preview.unknown_ids == answer.unknown_ids
    assert preview.unknown_subjects == answer.unknown_subjects


def test_more_names_than_one_statement_takes(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_batches, "BATCH", 3)
    ids = [record(*place, number) for place in PLACES for number in range(1, PER_SLICE)]
    receipt = ledger.accept_deletion(ids, [name("subject", "ann")]).receipt
    assert receipt.records == len(PLACES) * PER_SLICE
    assert {state.records for state in ledger.slices()} == {0}
    assert {state.digest for state in ledger.slices()} == {LtHash16().digest()}


def test_the_cost_is_that_of_the_records_named(url: str) -> None:
    """The statements of a deletion do not grow with the run, and none reads the records without an index."""
    with opened(url, create=True) as ledger:
        many = (entry(f"more {number}", 0, number % 3) for number in range(24_000))
        ledger.ingest(RUN, [*entries(), *many])
        # Not purged: a look-up must not read through the tombstones either.
        ledger.accept_deletion([name("id", f"more {number}") for number in range(24_000) if number % 3])
        engine = ledger._database._engine
        seen: list[tuple[str, Any]] = []
        event.listen(engine, "before_cursor_execute", lambda *call: seen.append((call[2], call[3])))
        ledger.accept_deletion([record(0, 0, 0)], [name("subject", "at 1.0")])
        epoch = ledger.take_lease("me")
        ledger.tombstones(0, 0)
        purge(ledger, epoch, ledger.deletions()[1].receipt.request_id)
        tables = ("s3t_records", "s3t_tombstones")
        about_records = [call for call in seen if any(table in call[0] for table in tables) and "INSERT" not in call[0]]
        assert len(about_records) >= 6
        if engine.dialect.name == "postgresql":
            with ledger._database.write() as tx:
                tx.connection.exec_driver_sql("ANALYZE")
        explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
        with ledger._database.read() as connection:
            for statement, values in about_records:
                lines = connection.exec_driver_sql(explain + statement, values).all()
                shown = " ".join(str(part) for line in lines for part in line)
                assert not re.search(r"SCAN (s3t_|[rt]\b)", shown), statement
                assert "Seq Scan" not in shown, statement


def test_history_tells_the_story_without_persons(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    train_all(ledger, epoch)
    receipt = ledger.accept_deletion([record(0, 1, 0), record(1, 1, 0)]).receipt
    told = [line for line in ledger.events() if line.kind == "deletion_accepted"]
    assert [(line.shard, json.loads(line.detail)["hits"]) for line in told] == [(0, [[1, 1]]), (1, [[1, 1]])]
    assert {json.loads(line.detail)["request"] for line in told} == {receipt.request_id}
    stale = [json.loads(line.detail)["stage"] for line in ledger.events() if line.kind == "stage_stale"]
    assert tuple(stale) == receipt.stages
    everything = " ".join(line.detail for line in ledger.events())
    assert record(0, 1, 0).hex() not in everything
