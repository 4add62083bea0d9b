"""The chain in the ledger: certificates are true to it, follow each other, and come with `restored`."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text

from s3t_ray.errors import LedgerError, VerificationFailed
from s3t_ray.ledger.certificate import ChainHead, OrderChoice, issue, verify_chain
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import DeletionState, StageState
from tests.unit.ledger.certify import KEYS, ORDERS, OTHER, PEM, SOFTWARE, certify
from tests.unit.ledger.world import RUN, adapter, name, purge, record, train_all


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
    times = (said.accepted_at, said.pruned_at, said.purged_at, said.restored_at)
    assert times == (row.times.accepted, row.times.pruned, row.times.purged, row.times.restored)
    assert sorted(times) == list(times)
    assert row.state is DeletionState.RESTORED
    assert (made.orders, made.software) == (OrderChoice(kind="cyclic", depends_on_history=False), SOFTWARE)
    assert ledger.certificate(receipt.request_id) == made
    assert record(0, 1, 0).hex() not in made.to_json()


def test_the_ledgers_chain_is_whole(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    assert ledger.certificate_head() == ChainHead()
    for number in range(3):
        request = ledger.accept_deletion([record(0, number, 0)]).receipt.request_id
        assert ledger.certificate(request) is None
        purge(ledger, epoch, request)
        certify(ledger, epoch, request)
    chain = ledger.certificates()
    assert [certificate.facts.sequence for certificate in chain] == [1, 2, 3]
    assert ledger.certificate_head() == ChainHead(sequence=3, hash=chain[2].hash)
    assert verify_chain([made.to_json() for made in chain], PEM, ledger.certificate_head()) == chain
    assert [event.kind for event in ledger.events()].count("deletion_restored") == 3


def test_appending_again_changes_nothing(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    request = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    purge(ledger, epoch, request)
    made = certify(ledger, epoch, request)
    before = ledger.deletions(), ledger.events()
    assert ledger.append_certificate(epoch, made)
    with pytest.raises(LedgerError, match="has a certificate already"):
        ledger.append_certificate(epoch, issue(made.facts, KEYS, ORDERS, {}))
    with pytest.raises(LedgerError, match="is restored: a certificate is made for one that is purged"):
        ledger.certificate_facts(request)
    assert (ledger.deletions(), ledger.events()) == before
    assert ledger.certificates() == (made,)


def test_facts_that_are_no_longer_true_are_not_signed_into_the_chain(ledger: Ledger) -> None:
    """Another deletion of the shard, or another certificate, came between."""
    epoch = ledger.take_lease("me")
    train_all(ledger, epoch)
    requests = [ledger.accept_deletion([record(0, 0, number)]).receipt.request_id for number in (0, 1)]
    train_all(ledger, epoch)
    for request in requests:
        purge(ledger, epoch, request)
    first, second = (issue(ledger.certificate_facts(request), KEYS, ORDERS, SOFTWARE) for request in requests)
    assert ledger.append_certificate(epoch, first)
    assert not ledger.append_certificate(epoch, second)
    again = issue(ledger.certificate_facts(requests[1]), KEYS, ORDERS, SOFTWARE)
    ledger.accept_deletion([record(0, 2, 0)])
    assert not ledger.append_certificate(epoch, again)
    assert ledger.deletion(requests[1]).state is DeletionState.PURGED
    certify(ledger, epoch, requests[1])
    assert len(ledger.certificates()) == 2


def test_untrue_facts_are_not_appended(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    request = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    purge(ledger, epoch, request)
    untrue = ledger.certificate_facts(request).model_copy(update={"records": 7})
    assert not ledger.append_certificate(epoch, issue(untrue, KEYS, ORDERS, SOFTWARE))
    assert ledger.certificates() == ()


def test_what_is_not_purged_gets_no_certificate(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    other = ledger.accept_deletion([record(1, 0, 0)]).receipt.request_id
    purge(ledger, epoch, other)
    said = certify(ledger, epoch, other).facts
    request = ledger.accept_deletion([record(0, 0, 0)]).receipt.request_id
    for _ in range(2):
        with pytest.raises(LedgerError, match=f"deletion {request} is (accepted|pruned)"):
            ledger.certificate_facts(request)
        ledger.advance(epoch, request, DeletionState.PRUNED)
    early = issue(said.model_copy(update={"request_id": request}), KEYS, ORDERS, SOFTWARE)
    with pytest.raises(LedgerError, match="is pruned"):
        ledger.append_certificate(epoch, early)
    assert len(ledger.certificates()) == 1


def test_only_the_runs_key_extends_the_chain(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    requests = [ledger.accept_deletion([record(0, 0, number)]).receipt.request_id for number in (0, 1)]
    for request in requests:
        purge(ledger, epoch, request)
    certify(ledger, epoch, requests[0])
    said = ledger.certificate_facts(requests[1])
    with pytest.raises(VerificationFailed, match="signed by another key than those before it"):
        ledger.append_certificate(epoch, issue(said, OTHER, ORDERS, SOFTWARE))
    forged = issue(said, KEYS, ORDERS, SOFTWARE).model_copy(update={"signature": "0" * 128})
    with pytest.raises(VerificationFailed, match="changed or forged"):
        ledger.append_certificate(epoch, forged)
    assert ledger.deletion(requests[1]).state is DeletionState.PURGED


def test_a_chain_that_an_older_version_began_goes_on(ledger: Ledger, url: str) -> None:
    """It cannot be read here, and a deletion must not wait for that."""
    epoch = ledger.take_lease("me")
    requests = [ledger.accept_deletion([record(0, 0, number)]).receipt.request_id for number in (0, 1)]
    for request in requests:
        purge(ledger, epoch, request)
    certify(ledger, epoch, requests[0])
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE s3t_certificates SET certificate = replace(certificate, 'te/1', 'te/0')"))
    engine.dispose()
    assert certify(ledger, epoch, requests[1]).facts.sequence == 2
    with pytest.raises(VerificationFailed, match="of format 's3t/certificate/0'"):
        ledger.certificates()


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
