"""Exports: folders outside the storage into which the run wrote weights, until their files are known to be gone."""

from __future__ import annotations

import json

from sqlalchemy import delete, insert, select

from s3t_ray.ledger.database import Database
from s3t_ray.ledger.tables import EXPORTS
from s3t_ray.ledger.values import EventKind, ExportedFolder


class Exports:
    """The exports that one ledger knows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, shard: int, export: ExportedFolder) -> None:
        """An export is about to be written; it takes the place of an earlier one in the same folder.

        Noted before its files are written: a crash leaves a row too many, never one too few.
        """
        row = {"folder": export.folder, "shard": shard, "files": json.dumps(export.files)}
        with self._database.write() as tx:
            tx.connection.execute(delete(EXPORTS).where(EXPORTS.c.folder == export.folder))
            tx.connection.execute(insert(EXPORTS).values(stages=json.dumps(export.stages), at=tx.now, **row))
            tx.event(EventKind.EXPORTED, shard, {"folder": export.folder})

    def forget(self, folder: str) -> None:
        """The files of an export are gone, or were never written."""
        with self._database.write() as tx:
            known = tx.connection.execute(select(EXPORTS.c.shard).where(EXPORTS.c.folder == folder)).scalar()
            if known is None:
                return
            tx.connection.execute(delete(EXPORTS).where(EXPORTS.c.folder == folder))
            tx.event(EventKind.EXPORT_ERASED, known, {"folder": folder})

    def all(self) -> tuple[ExportedFolder, ...]:
        """Those whose files may still be there, by folder."""
        with self._database.read() as connection:
            rows = connection.execute(select(EXPORTS).order_by(EXPORTS.c.folder)).all()
        return tuple(
            ExportedFolder(row.folder, tuple(json.loads(row.stages)), tuple(json.loads(row.files))) for row in rows
        )
