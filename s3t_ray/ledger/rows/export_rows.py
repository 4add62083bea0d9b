"""Exports: folders outside the storage into which the run wrote weights, until their files are known to be gone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, insert, select

from s3t_ray.ledger.database import Database
from s3t_ray.ledger.rows import log_rows
from s3t_ray.ledger.rows.log_rows import EntryKind, LogPosition
from s3t_ray.ledger.tables import EXPORTS
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import EventKind, ExportedFolder
from s3t_ray.proof.export_entry import ExportEntry, ExportFacts, still_there
from s3t_ray.proof.signed_entry import SignedEntry, signed


class Exports:
    """The exports in one ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, shard: int, export: ExportedFolder) -> None:
        """Record an export that is about to be written; it replaces an earlier one in the same folder.

        Noted before its files are written, and entered in the log: a crash leaves a row too many, never one too few.
        LedgerError: the run's keys cannot be had.
        """
        row = {"folder": export.folder, "shard": shard, "files": json.dumps(export.files)}
        with self._database.write() as tx:
            tx.connection.execute(delete(EXPORTS).where(EXPORTS.c.folder == export.folder))
            tx.connection.execute(insert(EXPORTS).values(stages=json.dumps(export.stages), at=tx.now, **row))
            tx.event(EventKind.EXPORTED, shard, {"folder": export.folder})
            _enter(tx, "noted", shard, export)

    def forget(self, folder: str) -> None:
        """Record that the files of an export are gone, or were never written. LedgerError: as for `note`."""
        with self._database.write() as tx:
            row = tx.connection.execute(select(EXPORTS).where(EXPORTS.c.folder == folder)).one_or_none()
            if row is None:
                return
            tx.connection.execute(delete(EXPORTS).where(EXPORTS.c.folder == folder))
            tx.event(EventKind.EXPORT_ERASED, row.shard, {"folder": folder})
            _enter(tx, "erased", row.shard, _read(row))

    def all(self) -> tuple[ExportedFolder, ...]:
        """Exports whose files may still exist, by folder."""
        with self._database.read() as connection:
            rows = connection.execute(select(EXPORTS).order_by(EXPORTS.c.folder)).all()
        return tuple(map(_read, rows))


def export_contradictions(
    connection: Connection, entries: Iterable[SignedEntry], *, all_are_in_log: bool
) -> Iterator[str]:
    """Differences between rows and log (oldest entry first). `all_are_in_log`: the log has every export of the run."""
    there = still_there(entries)
    for row in connection.execute(select(EXPORTS).order_by(EXPORTS.c.folder)):
        told, found = there.pop(row.folder, None), _read(row)
        if told is None and all_are_in_log:
            yield f"the export at {row.folder} is in the ledger, and the log does not tell of it: it was made up"
        elif told is not None and (told.shard, told.stages, told.files, told.at) != (
            row.shard,
            found.stages,
            found.files,
            row.at,
        ):
            yield f"the export at {row.folder} has another shard, stages, files or time than the log tells"
    for folder in there:
        yield f"the export at {folder} is in the log, and was taken out of the ledger: no purge would erase it"


def _enter(tx: Transaction, what: Literal["noted", "erased"], shard: int, export: ExportedFolder) -> None:
    def make(position: LogPosition) -> ExportEntry:
        facts = ExportFacts(**position._asdict(), at=tx.now, what=what, shard=shard, **asdict(export))
        return signed(ExportEntry, tx.keys, facts=facts)

    log_rows.append(tx, EntryKind.EXPORT, None, make)


def _read(row: Row[Any]) -> ExportedFolder:
    return ExportedFolder(row.folder, tuple(json.loads(row.stages)), tuple(json.loads(row.files)))
