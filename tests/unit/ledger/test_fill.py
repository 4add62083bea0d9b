"""Filling a large ledger: in the order of keys, indexes afterwards, and the journal as it was before."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from s3t_ray.errors import LedgerError
from s3t_ray.ledger import key_order
from s3t_ray.ledger.key_order import in_key_order
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.rows import record_rows
from s3t_ray.ledger.values import DuplicateRecord, RecordEntry
from tests.unit.ledger.certify import KEYS, opened
from tests.unit.ledger.world import RUN, entries, name, record


def shuffled() -> list[RecordEntry]:
    rows = list(entries())
    random.Random(3).shuffle(rows)
    return rows


@pytest.mark.parametrize("piece", [1, 4, 7])
def test_many_come_in_the_order_of_their_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(key_order, "PIECE", piece)
    rows = [replace(row, signature=b"12345678") for row in shuffled()]
    rows[3] = replace(rows[3], subject_hmac=None, shard=-1)
    assert list(in_key_order(rows, tmp_path)) == sorted(rows, key=lambda row: row.id_hmac)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_few_stay_as_they_are(tmp_path: Path) -> None:
    rows = shuffled()
    assert list(in_key_order(rows, tmp_path)) == rows
    assert list(in_key_order([], tmp_path)) == []


def test_the_order_on_disk_changes_nothing(empty: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_order, "PIECE", 4)
    monkeypatch.setattr(record_rows, "BATCH", 3)
    monkeypatch.setattr(record_rows, "DIGESTS_WAITING", 5)
    states = {(state.shard, state.slice): (state.records, state.digest) for state in empty.ingest(RUN, shuffled())}
    rows = list(entries())
    assert sum(count for count, _ in states.values()) == len(rows)
    assert empty.contradictions() == ()
    found = empty.record_states([row.id_hmac for row in rows])
    assert {key: (state.shard, state.slice) for key, state in found.items()} == {
        row.id_hmac: (row.shard, row.slice) for row in rows
    }


def test_repeats_far_apart_are_found(empty: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_order, "PIECE", 4)
    monkeypatch.setattr(record_rows, "BATCH", 3)
    rows = shuffled()
    with pytest.raises(DuplicateRecord, match="2 of the records repeat") as caught:
        empty.ingest(RUN, [*rows, rows[0], replace(rows[1], content_hmac=name("content", "other"))])
    assert caught.value.id_hmac in {rows[0].id_hmac, rows[1].id_hmac}
    assert (empty.run(), empty.slices()) == (None, ())


def sqlite_ledger(folder: Path) -> Ledger:
    return opened(f"sqlite:///{folder / 'ledger.db'}", create=True)


def indexes(folder: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(folder / "ledger.db")) as other:
        return set(other.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"))


def journal(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "ledger.db")) as other:
        return str(other.execute("PRAGMA journal_mode").fetchone()[0])


def broken() -> Iterator[RecordEntry]:
    yield from list(entries())[:3]
    raise LedgerError("no more", "none")


def test_indexes_and_journal_are_those_of_before(tmp_path: Path) -> None:
    with sqlite_ledger(tmp_path) as ledger:
        before = indexes(tmp_path)
        assert {"s3t_records_subject", "s3t_records_content"} <= {index for index, _ in before}
        for rows in (broken(), entries()):
            try:
                ledger.ingest(RUN, rows)
            except LedgerError:
                assert ledger.run() is None
            assert indexes(tmp_path) == before
            assert journal(tmp_path) == "wal"
        assert ledger.accept_deletion([record(0, 0, 0)]).receipt.records == 1


def test_a_reader_in_the_way_only_costs_the_log(tmp_path: Path) -> None:
    """Another process has the file open: the journal stays what it is, and both go on."""
    with sqlite_ledger(tmp_path) as ledger, closing(sqlite3.connect(tmp_path / "ledger.db")) as other:
        seen: list[str] = []

        def watched() -> Iterator[RecordEntry]:
            for row in entries():
                seen.append(str(other.execute("PRAGMA journal_mode").fetchone()[0]))
                yield row

        other.execute("SELECT count(*) FROM s3t_records").fetchone()
        ledger.ingest(RUN, watched())
        assert set(seen) == {"wal"}
        assert other.execute("SELECT count(*) FROM s3t_records").fetchone()[0] == len(seen)


KILLED = """
import os, signal, sys
from s3t_ray.ledger import key_order
from s3t_ray.ledger.rows import record_rows
from tests.unit.ledger.certify import opened
from tests.unit.ledger.world import RUN, entries
key_order.PIECE, record_rows.BATCH = 4, 2
with opened(sys.argv[1]) as ledger:
    database, add = ledger._database, record_rows._add_batch
    def spill_and_die(connection, batch, state):
        add(connection, batch, state)
        if state.records >= 6:
            # Written to the file before the commit, as pages are that the cache has no room for.
            connection.exec_driver_sql("PRAGMA cache_spill = 1")
            connection.exec_driver_sql("PRAGMA cache_size = 1")
            connection.exec_driver_sql("CREATE TABLE filler AS SELECT randomblob(400000)")
            os.kill(os.getpid(), signal.SIGKILL)
    record_rows._add_batch = spill_and_die
    ledger.ingest(RUN, entries())
"""


def test_a_kill_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with sqlite_ledger(tmp_path):
        pass
    before = indexes(tmp_path)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, url], env={**os.environ, "PYTHONPATH": os.getcwd()}, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "ledger.db-journal").stat().st_size > 0, "it was killed with the other journal open"
    with Ledger.open(url) as ledger:
        assert (ledger.run(), ledger.slices(), ledger.events()) == (None, (), ())
        assert indexes(tmp_path) == before and journal(tmp_path) == "wal"
        ledger.bind(lambda: KEYS)
        assert len(ledger.ingest(RUN, entries())) > 0
        assert ledger.contradictions() == ()
