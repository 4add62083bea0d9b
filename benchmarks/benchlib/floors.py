"""Measures lower bounds for the cost of a deletion: a bare commit, a bare insert, a bare Ray call.

In: a ledger's URL. Out: times in seconds. Uses the database's own driver, with the ledger's durability (SQLite: WAL and
synchronous=FULL; PostgreSQL: synchronous_commit), and this module's own tables, which it drops afterwards.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchlib.measure import seconds
from s3t_ray.errors import ConfigError

MIGRATED = (
    "CREATE TABLE s3t_bench_rows (id {blob} NOT NULL PRIMARY KEY CHECK (length(id) = 32), subject {blob}, "
    "content {blob}, digest {blob}, seal {blob}, shard INTEGER NOT NULL, slice INTEGER NOT NULL, deletion INTEGER, "
    "CHECK (deletion IS NOT NULL OR digest IS NOT NULL))",
    "CREATE INDEX s3t_bench_subject ON s3t_bench_rows (subject) WHERE subject IS NOT NULL",
    "CREATE INDEX s3t_bench_content ON s3t_bench_rows (content) WHERE content IS NOT NULL",
)
"""Shape and indexes of `s3t_records` (`ledger/migrations.py`)."""

COLUMNS = ("id", "subject", "content", "digest", "seal", "shard", "slice", "deletion")
"""Columns of a record in the ledger, which the bare bulk insert writes."""


class BareDatabase:
    """One connection, without any layer in between."""

    def __init__(self, connection: Any, mark: str, binary: str) -> None:
        self._connection = connection
        self._mark = mark
        self._binary = binary
        self._count = 0
        self._execute("CREATE TABLE s3t_bench_commit (id INTEGER PRIMARY KEY, value INTEGER)")

    def commit(self) -> None:
        """Insert one row in one durable transaction."""
        self._count += 1
        self._execute("BEGIN")
        self._execute(f"INSERT INTO s3t_bench_commit VALUES ({self._mark}, 1)", (self._count,))
        self._execute("COMMIT")

    def insert_seconds(self, rows: int) -> float:
        """Seconds to insert rows like the ledger's records, with a random 32-byte key, in one durable transaction."""
        binary = ", ".join(f"{name} {self._binary}" for name in COLUMNS[1:5])
        numbers = ", ".join(f"{name} INTEGER" for name in COLUMNS[5:])
        self._execute(f"CREATE TABLE s3t_bench_rows (id {self._binary} NOT NULL PRIMARY KEY, {binary}, {numbers})")
        return self._timed_insert(rows)

    def record_insert_seconds(self, rows: int) -> float:
        """The same for a table like `s3t_records`, with its indexes."""
        for statement in MIGRATED:
            self._execute(statement.format(blob=self._binary))
        return self._timed_insert(rows)

    def _timed_insert(self, rows: int) -> float:
        values = [(*(os.urandom(32) for _ in range(4)), os.urandom(16), 1, 1, None) for _ in range(rows)]
        statement = f"INSERT INTO s3t_bench_rows VALUES ({', '.join([self._mark] * len(COLUMNS))})"

        def insert() -> None:
            self._execute("BEGIN")
            self._connection.cursor().executemany(statement, values)
            self._execute("COMMIT")

        took = seconds(insert)
        self._execute("DROP TABLE s3t_bench_rows")
        return took

    def close(self) -> None:
        self._execute("DROP TABLE s3t_bench_commit")
        self._connection.close()

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> None:
        self._connection.execute(statement, values)


@contextmanager
def bare_database(ledger_url: str) -> Iterator[BareDatabase]:
    """The ledger's database without the ledger: for SQLite a file beside it, for PostgreSQL the same server."""
    if ledger_url.startswith("sqlite:///"):
        path = Path(ledger_url.removeprefix("sqlite:///")).with_name("bench.db")
        connection = sqlite3.connect(path, isolation_level=None)
        for setting in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -65536"):
            connection.execute(f"PRAGMA {setting}")
        database = BareDatabase(connection, "?", "BLOB")
    elif ledger_url.startswith("postgresql"):
        import psycopg

        address = ledger_url.replace("postgresql+psycopg://", "postgresql://", 1)
        database = BareDatabase(psycopg.connect(address, autocommit=True), "%s", "BYTEA")
    else:
        raise ConfigError("the ledger's database is neither SQLite nor PostgreSQL", "give a URL that a ledger takes")
    try:
        yield database
    finally:
        database.close()
        if ledger_url.startswith("sqlite"):
            for name in ("bench.db", "bench.db-wal", "bench.db-shm"):
                path.with_name(name).unlink(missing_ok=True)


class Nothing:
    """The bare Ray call: an actor's method that does nothing."""

    def nothing(self) -> None:
        return None
