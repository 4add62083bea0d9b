"""Rows under seal: what is moved to another person is refused and told; old runs are sealed once."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.proof.run_entry import RunEntry
from s3t_ray.proof.run_log import parse_entry
from tests.unit.ledger.world import name, purge, record


def edit(ledger: Ledger, *statements: str) -> None:
    with ledger._database.write() as tx:
        for statement in statements:
            assert tx.connection.execute(text(statement)).rowcount, statement


SWAP = (
    "UPDATE s3t_records SET subject_hmac = (SELECT max(subject_hmac) FROM s3t_records) "
    "WHERE subject_hmac = (SELECT min(subject_hmac) FROM s3t_records)"
)


def test_a_record_that_was_given_to_another_person_is_not_deleted_for_them(ledger: Ledger) -> None:
    edit(ledger, SWAP)
    with ledger._database.read() as connection:
        person = connection.execute(text("SELECT max(subject_hmac) FROM s3t_records")).scalar()
    assert isinstance(person, bytes | memoryview)
    with pytest.raises(LedgerError, match="were changed outside the run; nothing was deleted"):
        ledger.accept_deletion([], [bytes(person)])
    assert ledger.deletions() == () and [row.kind for row in ledger.log()] == ["run"]
    assert any("another id, subject or place" in line for line in ledger.contradictions())


def test_a_purge_leaves_the_seals_true(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    request = ledger.accept_deletion([record(0, 1, 0)]).receipt.request_id
    purge(ledger, epoch, request)
    assert [line for line in ledger.contradictions() if "seal" in line] == []


def test_a_run_of_an_older_version_is_sealed_once_and_says_so(ledger: Ledger) -> None:
    edit(ledger, "UPDATE s3t_records SET seal = NULL", "UPDATE s3t_run SET seal = NULL", "DELETE FROM s3t_log")
    assert not ledger.is_sealed()
    assert any("is not covered until" in line for line in ledger.contradictions())
    ledger.accept_deletion([record(0, 0, 0)], [name("subject", "ann")])
    assert ledger.seal() and ledger.is_sealed() and not ledger.seal()
    begun = parse_entry(ledger.log()[-1].text)
    assert isinstance(begun, RunEntry) and begun.facts.sealed == "upgrade"
    assert begun.facts.ledger_sequence == ledger.events()[-1].seq
    assert ledger.contradictions() == ()


@pytest.mark.parametrize(
    "first", [(), ("DELETE FROM s3t_log WHERE kind = 'run'",)], ids=["log", "log without its first"]
)
def test_seals_that_were_taken_off_are_not_set_anew(ledger: Ledger, first: tuple[str, ...]) -> None:
    """Else whoever moved a record to another person would have the run's own keys sign it."""
    ledger.accept_deletion([record(0, 1, 0)])
    edit(ledger, SWAP, "UPDATE s3t_records SET seal = NULL", "UPDATE s3t_run SET seal = NULL", *first)
    with pytest.raises(LedgerError, match="seals of the ledger's rows were taken off"):
        ledger.seal()
    with pytest.raises(LedgerError, match="seals of the ledger's rows were taken off"):
        ledger.accept_deletion([record(0, 0, 0)])
    assert not ledger.is_sealed() and len(ledger.deletions()) == 1
