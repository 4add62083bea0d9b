"""What the ledger is asked by name of a deletion: its entries of the log, and the ids that begin in some way."""

from __future__ import annotations

from sqlalchemy import text

from s3t_ray.ledger.ledger import Ledger
from tests.unit.ledger.certify import CIRCUMSTANCES, certify
from tests.unit.ledger.world import purge, record


def test_the_entries_of_one_deletion_and_of_no_other(ledger: Ledger) -> None:
    epoch = ledger.take_lease("me")
    one, other = (ledger.accept_deletion([record(0, 1, number)]).receipt.request_id for number in (0, 1))
    assert [row.kind for row in ledger.log_of(one)] == ["receipt"]
    for request in (one, other):
        purge(ledger, epoch, request)
        ledger.certify(epoch, request, CIRCUMSTANCES, final=False)
    certify(ledger, epoch, one)
    whole = {row.sequence: row for row in ledger.log()}
    for request, kinds in ((one, ["receipt", "interim", "certificate"]), (other, ["receipt", "interim"])):
        rows = ledger.log_of(request)
        assert [row.kind for row in rows] == kinds
        assert [row.request_id for row in rows] == [request] * len(rows)
        assert list(rows) == [whole[row.sequence] for row in rows], "as they stand, oldest first"
    assert ledger.log_of("nobody's") == ()
    assert ledger.log_of(one[:6]) == (), "a beginning is no name here"


def test_ids_by_their_beginning(ledger: Ledger) -> None:
    ids = sorted(ledger.accept_deletion([record(0, 1, number)]).receipt.request_id for number in range(4))
    for request in ids:
        assert ledger.requests_named(request) == ledger.requests_named(request[:12]) == (request,)
    assert ledger.requests_named("") == tuple(ids[:2]), "two are enough to know that it names no one"
    assert ledger.requests_named(ids[0] + "0") == () == ledger.requests_named("x")
    rename = text("UPDATE s3t_deletions SET request_id = :becomes WHERE request_id = :of")
    with ledger._database.write() as tx:
        for of, becomes in zip(ids, ("ab_d", "abcd"), strict=False):
            tx.connection.execute(rename, {"of": of, "becomes": becomes})
    assert ledger.requests_named("ab_") == ("ab_d",), "a sign of the pattern language stands for itself"
    assert ledger.requests_named("ab%") == ()
    assert set(ledger.requests_named("ab")) == {"ab_d", "abcd"}
