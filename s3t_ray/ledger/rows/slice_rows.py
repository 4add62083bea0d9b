"""Slices of data: their digests, the files with their rows, and what those files still contain.

A file has the rows of its slice as of some deletion (its `file_deletion`). Rows deleted later have tombstones, and
readers must skip them until a rewritten file is recorded. The digest alone determines a file's deletion, because
`s3t_hits` has every digest that a slice ever had.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.tables import HITS, SLICES
from s3t_ray.ledger.tombstones import digests
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import EventKind, SliceState


def read_slices(connection: Connection, shard: int | None) -> tuple[SliceState, ...]:
    """See `Ledger.slices`."""
    query = select(SLICES).order_by(SLICES.c.shard, SLICES.c.slice)
    if shard is not None:
        query = query.where(SLICES.c.shard == shard)
    return tuple(
        SliceState(row.shard, row.slice, row.records, row.digest, row.file, row.file_sha256, row.file_digest)
        for row in connection.execute(query)
    )


def tombstones(connection: Connection, shard: int, slice_index: int) -> frozenset[bytes]:
    """See `Ledger.tombstones`."""
    row = _slice(connection, shard, slice_index)
    return digests(connection, (shard, slice_index), row.file_deletion)


def set_file(tx: Transaction, shard: int, slice_index: int, file: str, sha256: str, file_digest: str) -> None:
    """See `Ledger.set_slice_file`."""
    row = _slice(tx.connection, shard, slice_index)
    deletion = _deletion_of(tx.connection, row, file_digest)
    if deletion < row.file_deletion:
        raise LedgerError(
            f"{file} holds older rows of shard {shard}, slice {slice_index} than {row.file}",
            "keep the newer file: the older one still has rows that were deleted",
        )
    tx.connection.execute(
        update(SLICES)
        .where(SLICES.c.shard == shard, SLICES.c.slice == slice_index)
        .values(file=file, file_sha256=sha256, file_digest=file_digest, file_deletion=deletion)
    )
    tx.event(EventKind.SLICE_REWRITTEN, shard, {"slice": slice_index, "file_digest": file_digest})


def _slice(connection: Connection, shard: int, slice_index: int) -> Row[Any]:
    row = connection.execute(select(SLICES).where(SLICES.c.shard == shard, SLICES.c.slice == slice_index)).one_or_none()
    if row is None:
        raise LedgerError(f"the run has no slice {slice_index} in shard {shard}", "take the places from Ledger.slices")
    return row


def _deletion_of(connection: Connection, row: Row[Any], file_digest: str) -> int:
    """The last deletion that a file with this digest reflects; 0: none."""
    hits = connection.execute(
        select(HITS.c.deletion, HITS.c.digest_before, HITS.c.digest_after)
        .where(HITS.c.shard == row.shard, HITS.c.slice == row.slice)
        .order_by(HITS.c.deletion.desc())
    ).all()
    for hit in hits:
        if hit.digest_after == file_digest:
            return int(hit.deletion)
    first = hits[-1].digest_before if hits else row.digest
    if first == file_digest:
        return 0
    raise LedgerError(
        f"shard {row.shard}, slice {row.slice} never had the digest {file_digest}",
        "record a file made from this slice's rows; write it again if the rows on disk differ",
    )
