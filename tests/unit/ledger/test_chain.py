"""The log in the ledger: receipts and certificates are true to it, follow each other, and come with what they tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import create_engine, event, text

from s3t_ray.errors import LedgerError, VerificationFailed
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.rows.log_rows import EntryKind
from s3t_ray.ledger.values import DeletionState, StageState
from s3t_ray.proof.certificate import OrderChoice, issue
from s3t_ray.proof.receipt import SignedReceipt
from s3t_ray.proof.run_log import verify_chain
from s3t_ray.proof.signed_entry import ChainHead, SignedEntry, signed
from tests.unit.ledger.certify import CIRCUMSTANCES, OTHER, PEM, SOFTWARE, certify
from tests.unit.ledger.world import RUN, Clock, adapter, digests, name, plan, purge, record, train_all


def test_the_ledgers_certificate_tells_the_whole_deletion(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    train_all(ledger, epoch)
    before = {(state.shard, state.slice): state.digest for state in ledger.slices()}
    receipt = ledger.accept_deletion([record(0, 1, 0), record(-1, 0, 0), name("id", "x")]).receipt
    after = {(state.shard, state.slice): state.digest for state in ledger.slices()}
    train_all(ledger, epoch)
    purge(ledger, epoch, receipt.request_id)
    ledger.accept_deletion([record(1, 0, 0)])
    made = certify(ledger, epoch, receipt.request_id)
    said = made.facts
    assert (said.run, said.recipe_digest, said.base_digest) == (RUN.name, RUN.recipe_digest, RUN.base_digest)
    assert (said.request_id, said.records, said.already_deleted, said.unknown) == (receipt.request_id, 2, 0, 1)
    assert [(s.shard, s.slice, s.records, s.digest_before, s.digest_after) for s in said.slices] == [
        (*place, 1, before[place], after[place]) for place in ((-1, 0), (0, 1))
    ]
    assert [proof.id for proof in said.stages_pruned] == list(receipt.stages)
    assert [proof.adapter_sha256 for proof in said.stages_pruned] == [adapter(stage) for stage in receipt.stages]
    assert [(proof.id, proof.adapter_sha256) for proof in said.stages_live] == [
        (row.id, row.adapter_sha256) for row in ledger.stages(0, StageState.LIVE)
    ]
    row = ledger.deletion(receipt.request_id)
    assert said.restored_at is not None
    times = (said.accepted_at, said.pruned_at, said.purged_at, said.restored_at)
    assert times == (row.times.accepted, row.times.pruned, row.times.purged, row.times.restored)
    assert sorted(times) == list(times)
    assert row.state is DeletionState.RESTORED
    assert (made.orders, made.software) == (OrderChoice(kind="cyclic", depends_on_history=False), SOFTWARE)
    assert ledger.certificate(receipt.request_id) == made
    assert record(0, 1, 0).hex() not in made.to_json()


def texts(ledger: Ledger) -> list[str]:
    return [row.text for row in ledger.log()]


def test_the_log_begins_with_the_run_and_holds_each_step_that_is_proved(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    for number in range(3):
        request = ledger.accept_deletion([record(0, number, 0)]).receipt.request_id
        assert ledger.certificate(request) is None
        purge(ledger, epoch, request)
        interim = ledger.certify(epoch, request, CIRCUMSTANCES, final=False)
        assert ledger.certificate(request) == interim
        assert ledger.deletion(request).state is DeletionState.PURGED
        final = certify(ledger, epoch, request)
        assert ledger.certificate(request) == final
        assert interim.facts.restored_at is None and final.facts.receipt == interim.facts.receipt
    assert [row.kind for row in ledger.log()] == ["run", *["receipt", "interim", "certificate"] * 3]
    head = ledger.log_head()
    assert (head.sequence, head.hash) == (10, ledger.log_hash(10))
    assert [entry.facts.sequence for entry in verify_chain(texts(ledger), PEM, head)] == list(range(1, 11))
    assert [event.kind for event in ledger.events()].count("deletion_restored") == 3
    assert ledger.log_hash(11) is None


def test_an_empty_ledger_has_a_name_and_an_empty_log(empty: Ledger) -> None:
    assert len(bytes.fromhex(empty.run_id)) == 16
    assert (empty.log(), empty.log_head()) == ((), ChainHead())


def test_a_receipt_is_in_the_log_from_the_transaction_that_accepts(ledger: Ledger) -> None:
    train_all(ledger, ledger.take_lease("me"))
    answer = ledger.accept_deletion([record(0, 1, 0), name("id", "x")], commitment="c" * 64)
    assert answer.signed is not None
    said = answer.signed.facts
    assert texts(ledger)[-1] == answer.signed.to_json()
    assert (said.request_id, said.accepted_at) == (answer.receipt.request_id, answer.receipt.accepted_at)
    assert (said.records, said.unknown, said.stages, said.commitment) == (1, 1, len(answer.receipt.stages), "c" * 64)
    assert said.run_id == ledger.run_id
    again = ledger.accept_deletion([name("id", "x"), record(0, 1, 0)], commitment="d" * 64)
    assert again.repeated and again.signed == answer.signed
    assert len(ledger.log((EntryKind.RECEIPT,))) == 1


def test_a_receipt_shows_neither_a_name_nor_a_place(ledger: Ledger) -> None:
    answer = ledger.accept_deletion([record(1, 2, 3)])
    assert isinstance(answer.signed, SignedReceipt)
    told = answer.signed.to_json()
    assert record(1, 2, 3).hex() not in told and "shard" not in told and "slice" not in told


def test_without_keys_nothing_is_accepted(url: str, ledger: Ledger) -> None:
    with Ledger.open(url) as other:
        with pytest.raises(LedgerError, match="cannot ask for the run's keys"):
            other.accept_deletion([record(0, 0, 0)])
        assert other.deletions() == ()


def test_certifying_again_changes_nothing(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    request = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    purge(ledger, epoch, request)
    made = certify(ledger, epoch, request)
    before = ledger.deletions(), ledger.events(), ledger.log()
    assert certify(ledger, epoch, request) == made
    assert (ledger.deletions(), ledger.events(), ledger.log()) == before
    assert ledger.certificates() == (made,)


def test_purged_deletions_without_an_interim_certificate_are_known(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    requests = [ledger.accept_deletion([record(0, 0, number)]).receipt.request_id for number in (0, 1)]
    assert ledger.without_interim() == ()
    for request in requests:
        purge(ledger, epoch, request)
    assert ledger.without_interim() == tuple(requests)
    ledger.certify(epoch, requests[1], CIRCUMSTANCES, final=False)
    assert ledger.without_interim() == (requests[0],)


def test_what_is_not_purged_gets_no_certificate(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    request = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    for _ in range(2):
        for final in (False, True):
            with pytest.raises(LedgerError, match=f"deletion {request} is (accepted|pruned)"):
                ledger.certify(epoch, request, CIRCUMSTANCES, final=final)
        ledger.advance(epoch, request, DeletionState.PRUNED)
    assert [row.kind for row in ledger.log()] == ["run", "receipt"]


def test_a_deletion_waits_for_the_certificate_of_the_one_before_it(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    first = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    second = ledger.accept_deletion([record(0, 0, 0), record(0, 0, 1)]).receipt.request_id
    for request in (first, second):
        purge(ledger, epoch, request)
    with pytest.raises(LedgerError, match=f"move {first} to restored first"):
        certify(ledger, epoch, second)
    assert ledger.certificates() == ()
    certify(ledger, epoch, first)
    certify(ledger, epoch, second)


def test_only_the_runs_key_extends_the_log(ledger: Ledger) -> None:
    with pytest.raises(VerificationFailed, match="begun with another key"):
        ledger.require_key(OTHER.public_key)


def test_an_erased_adapter_that_is_live_again_is_not_certified(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    train_all(ledger, epoch)
    answer = ledger.accept_deletion([record(0, 0, 0)])
    request = answer.receipt.request_id
    purge(ledger, epoch, request)
    stage = min((s for s in plan(ledger, 0).stages.values() if s.parent is None), key=lambda s: s.slices)
    assert ledger.accept_stage(epoch, stage, adapter(answer.receipt.stages[0]), digests(ledger, 0))
    assert ledger.same_adapter(request) == (stage.id,)
    for final in (False, True):
        with pytest.raises(VerificationFailed, match="as erased, and as live"):
            ledger.certify(epoch, request, CIRCUMSTANCES, final=final)
    assert ledger.deletion(request).state is DeletionState.PURGED
    anew = replace(CIRCUMSTANCES, trained_anew=[stage.id])
    assert ledger.certify(epoch, request, anew, final=True).facts.trained_to_same_bytes == (stage.id,)


def test_a_clock_that_is_turned_back_does_not_turn_the_times_back(ledger: Ledger, clock: Clock) -> None:
    epoch = ledger.take_lease("me")
    request = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    clock.time = clock.time.replace(year=2001)
    purge(ledger, epoch, request)
    said = certify(ledger, epoch, request).facts
    times = [said.accepted_at, said.pruned_at, said.purged_at, str(said.restored_at)]
    assert times == sorted(times) and times[0].startswith("2030")
    events = [event.at for event in ledger.events()]
    assert events == sorted(events)


def test_a_log_started_by_an_older_version_continues(ledger: Ledger, url: str) -> None:
    """Its entry cannot be read here, and a deletion must not wait for that."""
    epoch = ledger.take_lease("me")
    requests = [ledger.accept_deletion([record(0, 0, number)]).receipt.request_id for number in (0, 1)]
    for request in requests:
        purge(ledger, epoch, request)
    certify(ledger, epoch, requests[0])
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE s3t_log SET entry = replace(entry, 'te/2', 'te/0')"))
    engine.dispose()
    assert certify(ledger, epoch, requests[1]).facts.sequence == 5
    with pytest.raises(VerificationFailed, match="of format 's3t/certificate/0'"):
        ledger.certificates()


def test_what_another_key_signed_is_not_returned_for_ours(ledger: Ledger, url: str) -> None:
    """Who can write to the ledger, and has no key, puts a receipt or a certificate of his own in the place of ours."""
    epoch = ledger.take_lease("me")
    answer = ledger.accept_deletion([record(0, 0, 0)])
    request = answer.receipt.request_id
    purge(ledger, epoch, request)
    interim = ledger.certify(epoch, request, CIRCUMSTANCES, final=False)
    assert answer.signed is not None

    def forge(kind: EntryKind, entry: SignedEntry) -> None:
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            change = text("UPDATE s3t_log SET entry = :entry WHERE kind = :kind")
            connection.execute(change, {"entry": entry.to_json(), "kind": str(kind)})
        engine.dispose()

    forge(EntryKind.INTERIM, issue(interim.facts, OTHER, interim.orders, interim.software))
    with pytest.raises(VerificationFailed, match="signed by another key"):
        ledger.certify(epoch, request, CIRCUMSTANCES, final=False)
    forge(EntryKind.INTERIM, answer.signed)
    with pytest.raises(VerificationFailed, match=r"for the certificate of deletion .* is the receipt"):
        ledger.certify(epoch, request, CIRCUMSTANCES, final=False)
    forge(EntryKind.RECEIPT, signed(SignedReceipt, OTHER, facts=answer.signed.facts))
    with pytest.raises(VerificationFailed, match="signed by another key"):
        ledger.accept_deletion([record(0, 0, 0)])
    with pytest.raises(VerificationFailed, match="signed by another key"):
        certify(ledger, epoch, request)


def test_earlier_requests_are_named(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    first = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    again = ledger.accept_deletion([record(0, 0, 0), name("id", "x")]).receipt.request_id
    purge(ledger, epoch, first)
    certify(ledger, epoch, first)
    purge(ledger, epoch, again)
    said = certify(ledger, epoch, again).facts
    assert said.earlier_requests == (first,)
    assert (said.records, said.already_deleted, said.slices, said.stages_pruned, said.stages_live) == (0, 1, (), (), ())


def test_what_a_scheduler_asks_in_every_round_reads_no_entry_of_the_log(ledger: Ledger) -> None:
    """They grow with every deletion, for as long as the run lives."""
    epoch = ledger.take_lease("me")
    for number in range(3):
        request = ledger.accept_deletion([record(0, number, 0)]).receipt.request_id
        purge(ledger, epoch, request)
        assert ledger.without_interim() == (request,)
        ledger.certify(epoch, request, CIRCUMSTANCES, final=False)
        assert ledger.without_interim() == ()
        if number:
            certify(ledger, epoch, request)
    assert [ledger.count_deletions(state) for state in DeletionState] == [0, 0, 1, 2]
    asked: list[str] = []
    event.listen(ledger._database._engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    ledger.without_interim()
    ledger.count_deletions(DeletionState.RESTORED)
    assert len([statement for statement in asked if "s3t_deletions" in statement]) == 2
    assert not [statement for statement in asked if "entry" in statement]
