"""Sketches under seal: who changes them without the keys cannot hide near-duplicates, nor put other records there."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.rows import log_rows
from s3t_ray.ledger.seals import row_seals
from tests.unit.ledger.certify import KEYS
from tests.unit.ledger.test_closure import LISTED, NEAR, SKETCHING, A, story
from tests.unit.ledger.world import RUN, name, purge, train_all

CHANGED = "sketches of records are not what the keys sealed"
INDEX = "the index of near-duplicates was changed"
LACKING = "records have lost their sketch"
SETTINGS = "how records are sketched, was changed"
NUMBER = "(SELECT record FROM s3t_sketches WHERE id_hmac = :near)"


@pytest.fixture
def sketched(empty: Ledger) -> Ledger:
    empty.ingest(RUN, story(), SKETCHING)
    return empty


def edit(ledger: Ledger, *statements: str) -> None:
    """Behind the run's back; `:near` is the record that is nearly like those of `A`."""
    with ledger._database.write() as tx:
        for statement in statements:
            bound = {"near": name("id", "near")} if ":near" in statement else {}
            assert tx.connection.execute(text(statement), bound).rowcount, statement


SWAP = """UPDATE s3t_sketches SET signature = other.signature, seal = other.seal FROM
    (SELECT record, signature, seal FROM s3t_sketches) AS other
    WHERE other.record = CASE s3t_sketches.record WHEN 0 THEN 5 ELSE 0 END AND s3t_sketches.record IN (0, 5)"""
HIDE = (f"DELETE FROM s3t_bands WHERE record = {NUMBER}", "DELETE FROM s3t_sketches WHERE id_hmac = :near")


@pytest.mark.parametrize(
    ("told", "statements"),
    [
        (CHANGED, ("UPDATE s3t_sketches SET signature = (SELECT max(signature) FROM s3t_sketches)",)),
        (CHANGED, (SWAP,)),
        (CHANGED, ("UPDATE s3t_sketches SET seal = NULL",)),
        (INDEX, (f"DELETE FROM s3t_bands WHERE record = {NUMBER}",)),
        (INDEX, ("INSERT INTO s3t_bands (key, record) VALUES (7, 7)",)),
        (INDEX, ("UPDATE s3t_bands SET key = key + 1",)),
        (LACKING, HIDE),
        (LACKING, ("DELETE FROM s3t_bands", "DELETE FROM s3t_sketches")),
        (SETTINGS, ("UPDATE s3t_sketching SET rows_a_band = 64, bands = 1", "DELETE FROM s3t_bands")),
        (SETTINGS, ("DELETE FROM s3t_sketching",)),
        (SETTINGS, ("UPDATE s3t_sketching SET bands = 1000000000",)),
    ],
)
def test_a_change_is_told(sketched: Ledger, told: str, statements: tuple[str, ...]) -> None:
    assert sketched.contradictions() == ()
    edit(sketched, *statements)
    assert any(told in line for line in sketched.contradictions())


def test_a_deletion_and_its_purge_leave_nothing_to_tell(sketched: Ledger) -> None:
    epoch = sketched.take_lease("me")
    train_all(sketched, epoch)
    request = sketched.accept_deletion(A, (), NEAR).receipt.request_id
    assert [line for line in sketched.contradictions() if "sketch" in line or "near" in line] == []
    purge(sketched, epoch, request)
    assert [line for line in sketched.contradictions() if "sketch" in line or "near" in line] == []


def test_no_record_is_deleted_for_a_sketch_that_is_not_its_own(sketched: Ledger) -> None:
    edit(sketched, "UPDATE s3t_sketches SET signature = (SELECT signature FROM s3t_sketches WHERE record = 0)")
    with pytest.raises(LedgerError, match=r"sketches of records are not what the run's keys sealed.*nothing was del"):
        sketched.accept_deletion(A, (), NEAR)
    assert sketched.deletions() == ()
    assert sketched.accept_deletion(A, (), LISTED).receipt.records == 1, "who names records alone needs no sketch"


def test_a_run_that_an_older_version_began_has_sketches_without_seals(sketched: Ledger) -> None:
    with sketched._database.write() as tx:
        said = row_seals._said_of_run(tx.connection, log_rows.read_identity(tx.connection), row_seals.SEALS_PURGES)
        tx.connection.execute(text("UPDATE s3t_run SET seal = :made"), {"made": KEYS.run_seal(said)})
    edit(sketched, "UPDATE s3t_sketches SET seal = NULL")
    assert sketched.contradictions() == () and sketched.is_sealed_since_begun()
    edit(sketched, f"DELETE FROM s3t_bands WHERE record = {NUMBER}")
    assert any(INDEX in line for line in sketched.contradictions()), "what follows from a sketch needs no seal"
    assert sketched.accept_deletion(A, (), NEAR).receipt.records == 3
