"""Connections, durability and locking: everything that differs between SQLite and PostgreSQL.

In: a URL. Out: short read and write transactions. Both databases allow one writer at a time: SQLite uses BEGIN
IMMEDIATE, and PostgreSQL first locks the single row of `s3t_head`. So sequence numbers follow the order of commits, and
writers cannot deadlock. A commit is on disk before it returns. SQLite's WAL needs a local disk, so several machines
need PostgreSQL.

Driver errors leave this module only as LedgerError.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, NoResultFound

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.keys import LedgerKeys
from s3t_ray.ledger.ledger_url import parse_url, require_file, shown
from s3t_ray.ledger.migrations import LATEST, check_version, migrate, schema_version
from s3t_ray.ledger.schema_shape import foreign_objects
from s3t_ray.ledger.tables import HEAD
from s3t_ray.ledger.transaction import Head, Transaction
from s3t_ray.ledger.values import NoLedger

LOCK_WAIT_SECONDS = 60
_LOG_WAIT_MILLISECONDS = 500
_MIGRATION_LOCK = 0x53335452  # "S3TR": PostgreSQL's advisory lock for opening an empty database
_FIXES = (
    ("not a database", "name the ledger's own file; if this is the ledger, restore it from a backup"),
    ("malformed", "the file is damaged: restore it from a backup"),
    ("locked", "another process has been writing for long: wait for it, or end it"),
    ("lock timeout", "another process has been writing for long: wait for it, or end it"),
    ("full", "free space on the ledger's disk, then try again: nothing was changed"),
    ("readonly", "make the ledger's file and its folder writable"),
    ("unable to open", "check the path and the rights of the ledger's folder"),
)


_LOCK_HEAD = select(HEAD).with_for_update()


class Database:
    """An open database with the latest schema. Thread-safe."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._writer = engine.execution_options(s3t_write=True)
        # SQLite's snapshots are already consistent.
        snapshot = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
        self._reader = engine.execution_options(**snapshot)
        self._engine = engine
        self._clock = clock
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self.ask_keys: Callable[[], LedgerKeys] | None = None
        """See `Ledger.bind`."""

    @classmethod
    def open(
        cls, address: str, create: bool, clock: Callable[[], datetime], read_only: bool = False, copied: bool = False
    ) -> Database:
        """See `Ledger.open` and, for `copied`, `Ledger.open_copy`."""
        url = parse_url(address)
        if url.get_backend_name() == "sqlite":
            require_file(url, create and not read_only)
            if copied:
                return cls._open_copy(url, clock)
        if read_only:
            return cls._open_read_only(url, clock)
        database = cls(_make_engine(url), clock)
        try:
            database._bring_up_to_date(create)
        except LedgerError:
            database.close()
            raise
        return database

    @classmethod
    def _open_read_only(cls, url: URL, clock: Callable[[], datetime]) -> Database:
        database = cls(_make_engine(url, read_only=True), clock)
        try:
            with database.read() as connection:
                version = schema_version(connection)
        except LedgerError:
            version = None  # perhaps a log that cannot be read without writing beside it
        if version == LATEST:
            return database
        database.close()
        if url.get_backend_name() != "sqlite":
            raise LedgerError(
                f"the ledger {shown(url)} is of schema version {version}, but it was opened read-only",
                f"open the run once with this s3t_ray (`s3t train`), which upgrades it to version {LATEST}",
            )
        return cls._open_copy(url, clock)

    @classmethod
    def _open_copy(cls, url: URL, clock: Callable[[], datetime]) -> Database:
        folder = tempfile.TemporaryDirectory(prefix="s3t-ledger-")
        source = Path(str(url.database))
        try:
            for suffix in ("", "-wal", "-journal"):
                if (part := source.with_name(source.name + suffix)).exists():
                    shutil.copyfile(part, Path(folder.name, source.name + suffix))
        except OSError as error:
            folder.cleanup()
            raise LedgerError(
                f"the ledger {source} cannot be copied for reading: {error.strerror}",
                "make it readable for this user, and free space for a copy in the temporary folder",
            ) from error
        try:
            database = cls.open(f"sqlite:///{Path(folder.name, source.name)}", False, clock)
        except LedgerError:
            folder.cleanup()
            raise
        database._copy = folder
        return database

    def close(self) -> None:
        self._engine.dispose()
        if self._copy is not None:
            self._copy.cleanup()

    def now(self) -> str:
        """The current time: UTC, ISO 8601 with microseconds."""
        return self._clock().astimezone(UTC).isoformat(timespec="microseconds")

    @property
    def keys(self) -> LedgerKeys | None:
        """The run's keys; None: `Ledger.bind` was not called."""
        return None if self.ask_keys is None else self.ask_keys()

    def require_keys(self) -> LedgerKeys:
        """The run's keys. LedgerError: they are unavailable, or `Ledger.bind` was not called."""
        if self.ask_keys is None:
            raise LedgerError(
                "this needs a signature, but the ledger cannot ask for the run's keys", "call Ledger.bind"
            )
        return self.ask_keys()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot."""
        with self._refusals(), self._reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """The only write transaction; durable when the block ends, rolled back if it raises."""
        with self._refusals(), self._writer.connect() as connection, connection.begin():
            row = connection.execute(_LOCK_HEAD).one()
            head = Head(row.sequence, row.epoch, row.holder, row.beats, row.at)
            transaction = Transaction(connection, head, self.now(), self.require_keys)
            yield transaction
            transaction.store_head()

    @contextmanager
    def fill(self) -> Iterator[Transaction]:
        """`write`, for the transaction that writes all records of a new ledger.

        SQLite: writes directly to the file if nobody else has it open. A WAL would store everything twice; the
        rollback journal stores only the former content of pages, and new pages have none. New readers wait. After a
        kill, the next open uses the journal to roll back.
        """
        self._set_journal("TRUNCATE")
        try:
            with self.write() as transaction:
                yield transaction
        finally:
            self._set_journal("WAL")

    def forget_overwritten(self) -> None:
        """Empty the log, which still contains rows just erased from the tables, unless somebody is reading from it.

        SQLite overwrites erased rows in the file (`secure_delete`), and this empties its log. While another process
        reads, the log stays until the next purge or the last close. In PostgreSQL, vacuum removes old row versions and
        the server recycles its log; a client cannot control either. These contain keyed HMACs and signatures, never
        contents.
        """
        if self._engine.dialect.name != "sqlite":
            return
        with self._refusals(), self._engine.raw_connection() as raw:
            raw.execute(f"PRAGMA busy_timeout = {_LOG_WAIT_MILLISECONDS}")
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            raw.execute(f"PRAGMA busy_timeout = {LOCK_WAIT_SECONDS * 1000}")

    def foreign(self) -> Iterator[str]:
        """What is in the ledger's database beside the ledger; see `schema_shape.py`."""
        if self._engine.dialect.name != "sqlite":
            with self.read() as connection:
                yield from (f"the ledger's database holds {told}" for told in foreign_objects(connection))
            return
        path = Path(unquote(str(self._engine.url.database).removeprefix("file:")))
        with self.read() as connection:
            yield from (f"{path.name} holds {told}" for told in foreign_objects(connection))
        with self._refusals(), self._engine.raw_connection() as raw:
            (pages,) = raw.execute("PRAGMA page_count").fetchone()
            (size,) = raw.execute("PRAGMA page_size").fetchone()
        log = path.with_name(f"{path.name}-wal")
        settled = not log.exists() or not log.stat().st_size
        if settled and path.stat().st_size > pages * size:
            yield f"{path.name} holds {path.stat().st_size - pages * size} bytes after its end"

    def _bring_up_to_date(self, create: bool) -> None:
        with self.read() as connection:
            version = schema_version(connection)
            if version is None and not create:
                raise self._not_a_ledger()
            if version is None and connection.dialect.name == "sqlite" and inspect(connection).get_table_names():
                raise self._not_a_ledger()
        if version is not None:
            self._set_journal("WAL")  # a process killed in `fill` may have left another mode
        if version == LATEST:
            return
        check_version(version or 0)
        if version is None and self._engine.dialect.name == "sqlite":
            # Persistent in the file; it cannot change inside a transaction.
            with self._refusals(), self._engine.raw_connection() as raw:
                raw.execute("PRAGMA journal_mode = WAL")
        with self._refusals(), self._writer.connect() as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            migrate(connection, self.now())

    def _set_journal(self, mode: str) -> None:
        """SQLite: switch to this journal mode; no effect while another connection is open."""
        if self._engine.dialect.name != "sqlite":
            return
        with self._refusals(), self._engine.raw_connection() as raw:
            if raw.execute("PRAGMA journal_mode").fetchone() == (mode.lower(),):
                return
        self._engine.dispose()  # our own idle connections
        with self._refusals(), self._engine.raw_connection() as raw:
            raw.execute(f"PRAGMA busy_timeout = {_LOG_WAIT_MILLISECONDS}")
            with suppress(sqlite3.OperationalError):
                raw.execute(f"PRAGMA journal_mode = {mode}")
            raw.execute(f"PRAGMA busy_timeout = {LOCK_WAIT_SECONDS * 1000}")

    def _not_a_ledger(self) -> LedgerError:
        return NoLedger(
            f"{shown(self._engine.url)} holds no ledger",
            "set ledger.url to the database of an existing run, or start a new run with an empty one",
        )

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        driver = self._engine.dialect.loaded_dbapi  # sometimes used without SQLAlchemy in between
        try:
            yield
        except (IntegrityError, driver.IntegrityError):
            raise  # a constraint of ours broke: a bug, and no fix of the user's
        except NoResultFound as error:
            raise LedgerError(
                f"the ledger {shown(self._engine.url)} lacks a row that every ledger has: it was taken out",
                "restore the ledger from a copy; `s3t audit` with its receipts tells whether the copy is new enough",
            ) from error
        except (DBAPIError, driver.Error) as error:
            reason = str(error.orig if isinstance(error, DBAPIError) else error).strip()
            fix = next((fix for part, fix in _FIXES if part in reason.lower()), "")
            raise LedgerError(
                f"the ledger {shown(self._engine.url)} refused: {reason}",
                fix or "check that the database exists and that this user may read and write it",
            ) from error


def _make_engine(url: URL, read_only: bool = False) -> Engine:
    if url.get_backend_name() == "postgresql":
        try:
            engine = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        except ModuleNotFoundError as error:
            raise LedgerError(
                f"the ledger {shown(url)} needs the package psycopg, which is not installed",
                "pip install 's3t-ray[postgres]'",
            ) from error
        event.listen(engine, "connect", _prepare_postgres)
        if read_only:
            event.listen(engine, "connect", _only_read_postgres)
        return engine
    if read_only:
        url = url.set(database=f"file:{quote(str(url.database))}", query={"mode": "ro", "uri": "true"})
    engine = create_engine(url, connect_args={"timeout": LOCK_WAIT_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins no transactions; `_begin_sqlite` does
    for setting in (
        f"busy_timeout = {LOCK_WAIT_SECONDS * 1000}",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",  # overwrite erased rows instead of only unlinking them
        "cache_size = -65536",  # 64 MiB: ids are HMACs, so inserts are scattered over the index
    ):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("s3t_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _prepare_postgres(connection: Any, _record: object) -> None:
    connection.execute(f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'")
    # If a role or server has it off, a commit returns before it is on disk.
    if connection.execute("SHOW synchronous_commit").fetchone()[0] == "off":
        connection.execute("SET synchronous_commit = on")
    connection.commit()


def _only_read_postgres(connection: Any, _record: object) -> None:
    connection.execute("SET default_transaction_read_only = on")
    connection.commit()
