"""Duplicates of deleted records: found by index, listed but kept unless requested, forgotten at the purge."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from s3t_ray.errors import LedgerError
from s3t_ray.ledger import minhash_index
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.resolve import NamedRows, others_of_content, resolve
from s3t_ray.ledger.values import DuplicateSearch, Reach, RecordEntry, Sketching, Twins
from tests.unit.ledger.world import PLACES, RUN, name, purge, train_all

SKETCHING = Sketching(permutations=64, shingle_words=5, bands=12, rows=5)
EXACT = DuplicateSearch(Reach.DUPLICATES, 0.8)
NEAR = DuplicateSearch(Reach.NEAR_DUPLICATES, 0.8)
LISTED = DuplicateSearch(Reach.NAMED, 0.8)


def signature(key: object, changed: int = 0) -> bytes:
    """A sketch of its own, with `changed` bytes of another: about 1 - changed / 64 like it."""
    own = hashlib.shake_128(f"sketch {key}".encode()).digest(64)
    return hashlib.shake_128(f"other {key} {changed}".encode()).digest(changed) + own[changed:]


def record(key: str, place: tuple[int, int], content: str, subject: str | None = None, changed: int = 0) -> RecordEntry:
    who = None if subject is None else name("subject", subject)
    return RecordEntry(
        name("id", key), who, name("content", f"{content} {changed}"), name("digest", key), *place,
        signature(content, changed),
    )  # fmt: skip


def story() -> Iterator[RecordEntry]:
    """`a` has two exact duplicates, one near one, and one that is too far from it; the others are alone."""
    yield record("a", (0, 0), "poem", "ann")
    yield record("a2", (1, 2), "poem", "bob")
    yield record("a3", (-1, 0), "poem")
    yield record("near", (0, 1), "poem", "bob", changed=6)
    yield record("far", (1, 0), "poem", "eve", changed=40)
    for number, place in enumerate(PLACES * 3):
        yield record(f"o{number}", place, f"text {number}", "ann" if number % 5 == 0 else None)


@pytest.fixture
def sketched(empty: Ledger) -> Ledger:
    empty.ingest(RUN, story(), SKETCHING)
    return empty


A = [name("id", "a")]


def test_a_preview_lists_them_by_subject_and_changes_nothing(sketched: Ledger) -> None:
    before = sketched.slices(), sketched.events()
    preview = sketched.preview(A, (), LISTED)
    assert (preview.records, preview.taken_along, preview.forgotten) == (1, 0, 0)
    assert preview.duplicates == Twins(2, ((None, 1), (name("subject", "bob"), 1)))
    assert preview.near_duplicates == Twins(1, ((name("subject", "bob"), 1),))
    assert (sketched.slices(), sketched.events()) == before


def test_what_is_named_is_no_duplicate_of_itself(sketched: Ledger) -> None:
    preview = sketched.preview([*A, name("id", "a3")], [name("subject", "bob")], LISTED)
    assert preview.records == 4
    assert (preview.duplicates.records, preview.near_duplicates) == (0, Twins(0, ()))


def test_a_content_that_many_named_records_share_is_looked_up_once(empty: Ledger) -> None:
    """Read as often as records have it, 400 records with one content would be 160,000 rows."""
    made = (record(f"s{number}", (0, 0), "yes", "ann" if number < 400 else "bob") for number in range(403))
    same = [replace(each, signature=None) for each in made]
    empty.ingest(RUN, same)
    with empty._database.read() as connection:
        named = resolve(connection, NamedRows.of((), (name("subject", "ann"),))).named
        rows = list(others_of_content(connection, named))
    assert len(named) == 400 and len(rows) == len({row.identity for row in rows}) == 402
    assert empty.preview((), [name("subject", "ann")], LISTED).duplicates == Twins(3, ((name("subject", "bob"), 3),))


def test_nothing_goes_unasked(sketched: Ledger) -> None:
    assert sketched.accept_deletion(A).receipt.records == 1
    after = sketched.preview(A, (), LISTED)
    assert (after.records, after.already_deleted) == (0, 1)
    assert after.duplicates.records == 2, "the deleted record still tells what is like it"


@pytest.mark.parametrize(("closure", "taken", "left"), [(EXACT, 2, (0, 1)), (NEAR, 3, (0, 0))])
def test_a_closure_takes_them_along(
    sketched: Ledger, closure: DuplicateSearch, taken: int, left: tuple[int, int]
) -> None:
    preview = sketched.preview(A, (), closure)
    answer = sketched.accept_deletion(A, (), closure)
    assert answer.receipt.records == preview.records == 1 + taken
    assert answer.taken_along == preview.taken_along == taken
    assert answer.receipt.hits == preview.hits
    after = sketched.preview(A, (), LISTED)
    assert after.near_duplicates is not None
    assert (after.duplicates.records, after.near_duplicates.records) == left
    assert preview.duplicates.records == left[0]


def test_the_same_request_is_the_same_and_another_closure_is_another(sketched: Ledger) -> None:
    alone = sketched.accept_deletion(A)
    exact = sketched.accept_deletion(A, (), EXACT)
    assert (exact.receipt.records, exact.receipt.already_deleted, exact.repeated) == (2, 1, False)
    again = sketched.accept_deletion(A, (), EXACT)
    assert (again.receipt, again.repeated, again.taken_along) == (exact.receipt, True, 0)
    assert sketched.accept_deletion(A).receipt == alone.receipt
    ids = {alone.receipt.request_id, exact.receipt.request_id, sketched.accept_deletion(A, (), NEAR).receipt.request_id}
    assert len(ids) == 3


def test_a_duplicate_deleted_by_an_earlier_request_must_be_purged_before(sketched: Ledger) -> None:
    earlier = sketched.accept_deletion([name("id", "a2")]).receipt
    later = sketched.accept_deletion(A, (), EXACT).receipt
    assert (later.records, later.already_deleted) == (2, 1)
    assert sketched.deletion(later.request_id).waits_for == (earlier.request_id,)


def test_the_purge_erases_exactly_what_identified_them(sketched: Ledger) -> None:
    epoch = sketched.take_lease("me")
    train_all(sketched, epoch)
    request = sketched.accept_deletion(A).receipt.request_id
    count = rows(sketched, "s3t_sketches"), rows(sketched, "s3t_bands")
    purge(sketched, epoch, request)
    assert (rows(sketched, "s3t_sketches"), rows(sketched, "s3t_bands")) == (count[0] - 1, count[1] - 12)
    preview = sketched.preview(A, (), LISTED)
    assert preview.forgotten == 1
    assert (preview.duplicates.records, preview.near_duplicates) == (0, Twins(0, ()))
    others = sketched.preview([name("id", "a2")], (), LISTED)
    assert others.duplicates.records == 1
    assert others.near_duplicates == Twins(1, ((name("subject", "bob"), 1),))


def test_near_duplicates_of_a_run_without_sketches(ledger: Ledger) -> None:
    ids = [name("id", "0.0.0")]
    assert ledger.sketching() is None
    assert ledger.preview(ids, (), EXACT).near_duplicates is None
    with pytest.raises(LedgerError, match=r"closure\.near_duplicates"):
        ledger.accept_deletion(ids, (), NEAR)
    assert ledger.deletions() == ()


def test_all_records_are_sketched_or_none(empty: Ledger) -> None:
    bare = RecordEntry(name("id", 1), None, name("content", 1), name("digest", 1), 0, 0)
    for entries, sketching in (([bare], SKETCHING), ([record("a", (0, 0), "x")], None)):
        with pytest.raises(LedgerError, match="sketch"):
            empty.ingest(RUN, entries, sketching)
    assert empty.run() is None


def test_near_duplicates_are_those_of_a_search_through_all(empty: Ledger) -> None:
    """By index equals by comparing every pair, for all pairs well above the threshold."""
    dice = random.Random(7)
    made = [
        record(f"r{family}.{changed}", dice.choice(PLACES), f"family {family}", changed=changed)
        for family in range(40)
        for changed in dice.sample(range(12), 5)
    ]
    empty.ingest(RUN, made, SKETCHING)
    table = minhash_index.likeness(
        [entry.signature or b"" for entry in made], [entry.signature or b"" for entry in made]
    )
    missed = 0
    for row, entry in enumerate(made):
        true = {made[column].id_hmac for column in range(len(made)) if table[row, column] >= 0.8 and column != row}
        with empty._database.read() as connection:
            found = minhash_index.alike(connection, SKETCHING, [entry.id_hmac], 0.8)
        assert found <= true
        missed += len(true - found)
    assert missed <= 0.01 * len(made) * 4


@pytest.mark.parametrize(("permutations", "threshold"), [(64, 0.8), (64, 0.5), (128, 0.9), (64, 1.0), (16, 0.05)])
def test_bands_keep_their_promise(permutations: int, threshold: float) -> None:
    bands, rows = minhash_index.choose_bands(permutations, threshold)
    assert bands * rows <= permutations
    recall = 1 - (1 - threshold**rows) ** bands
    longer = 1 - (1 - threshold ** (rows + 1)) ** (permutations // (rows + 1))
    assert rows == 1 or recall >= minhash_index.RECALL > longer or rows == permutations


def test_no_look_up_reads_a_whole_table(empty: Ledger) -> None:
    many = (record(f"m{number}", PLACES[number % len(PLACES)], f"m{number}") for number in range(3000))
    empty.ingest(RUN, [*story(), *many], SKETCHING)
    engine = empty._database._engine
    if engine.dialect.name == "postgresql":
        with empty._database.write() as tx:
            tx.connection.exec_driver_sql("ANALYZE")
    seen: list[tuple[str, object]] = []
    event.listen(engine, "before_cursor_execute", lambda *call: seen.append((call[2], call[3])))
    empty.preview(A, (), NEAR)
    epoch = empty.take_lease("me")
    purge(empty, epoch, empty.accept_deletion(A, (), NEAR).receipt.request_id)
    tables = ("s3t_records", "s3t_sketches", "s3t_bands")
    queries = [call for call in seen if any(table in call[0] for table in tables) and "PRAGMA" not in call[0]]
    assert len(queries) >= 12
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    with empty._database.read() as connection:
        for statement, values in queries:
            one: Any = values[0] if isinstance(values, list) else values
            lines = connection.exec_driver_sql(explain + statement, one).all()
            shown = " ".join(str(part) for line in lines for part in line)
            assert not re.search(r"SCAN (s3t_|[rt]\b)", shown), statement
            # How a database finds the few tombstones there are is its own affair (`test_deletions.py` has many).
            assert not any(f"Seq Scan on {table}" in shown for table in tables), statement


def rows(ledger: Ledger, table: str) -> int:
    with ledger._database.read() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() or 0)
