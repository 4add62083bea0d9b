"""The progress of deletions: reading it, and moving a deletion forward one step at a time.

`accepted -> pruned -> purged -> restored`. A step is refused if it would be untrue: `purged` while bytes that the
ledger knows of still exist, and any step while an earlier deletion of the same records is behind. The ledger cannot
see serving replicas: for `pruned` it relies on the scheduler.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, bindparam, func, select, update

from s3t_ray.errors import LedgerError
from s3t_ray.ledger import tombstones
from s3t_ray.ledger.rows import request_rows, stage_rows
from s3t_ray.ledger.tables import DELETIONS, HITS, LINKS, PRUNED, SLICES
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import (
    DeletionRow,
    DeletionState,
    DeletionTimes,
    EventKind,
    Hit,
    NoSuchDeletion,
    Receipt,
)

_EVENTS = {
    DeletionState.PRUNED: EventKind.DELETION_PRUNED,
    DeletionState.PURGED: EventKind.DELETION_PURGED,
    DeletionState.RESTORED: EventKind.DELETION_RESTORED,
}


Receipts = dict[int, Receipt]
"""Cached receipts, by sequence number of the deletion; receipts never change."""

MOST_RECEIPTS = 4096


def read_deletions(
    connection: Connection, state: DeletionState | None, known: Receipts | None = None
) -> tuple[DeletionRow, ...]:
    """See `Ledger.deletions`. Adds new receipts to the cache `known`."""
    if state is not None and connection.execute(_ANY_IN, {"state": str(state)}).first() is None:
        return ()  # the usual case: a scheduler asks many times per second
    query = select(DELETIONS.c.sequence)
    if state is not None:
        query = query.where(DELETIONS.c.state == str(state))
    return _assemble(connection, query, {} if known is None else known)


def named(connection: Connection, beginning: str) -> tuple[str, ...]:
    """See `Ledger.requests_named`."""
    query = select(DELETIONS.c.request_id).where(DELETIONS.c.request_id.startswith(beginning, autoescape=True))
    return tuple(connection.scalars(query.order_by(DELETIONS.c.request_id).limit(2)))


def count(connection: Connection, state: DeletionState) -> int:
    """See `Ledger.count_deletions`."""
    return connection.scalar(_COUNT, {"state": str(state)}) or 0


def read_deletion(connection: Connection, request_id: str) -> DeletionRow:
    """See `Ledger.deletion`."""
    sequence = find(connection, request_id).sequence
    return _assemble(connection, select(DELETIONS.c.sequence).where(DELETIONS.c.sequence == sequence), {})[0]


def find(connection: Connection, request_id: str) -> Row[Any]:
    """The row of a deletion. NoSuchDeletion: there is none."""
    row = connection.execute(_BY_REQUEST, {"of_request": request_id}).one_or_none()
    if row is None:
        raise NoSuchDeletion(
            f"there is no deletion {request_id!r}", "take the id from its receipt, or list the deletions"
        )
    return row


def advance(tx: Transaction, request_id: str, state: DeletionState) -> None:
    """See `Ledger.advance`."""
    row = find(tx.connection, request_id)
    if row.state == state:
        return
    if state is DeletionState.RESTORED:
        raise LedgerError(f"deletion {request_id} becomes restored only with its certificate", "use Ledger.certify")
    step(tx, row, state, tx.now)


def step(tx: Transaction, row: Row[Any], state: DeletionState, at: str) -> None:
    """Move a deletion to the next state. LedgerError: the state would be untrue."""
    current = DeletionState(row.state)
    if state.rank != current.rank + 1:
        raise LedgerError(
            f"deletion {row.request_id} is {current}: it cannot move to {state}",
            f"move it one step forward at a time: {' -> '.join(DeletionState)}",
        )
    _require_earlier(tx.connection, row, state)
    if state is DeletionState.PURGED:
        _purge(tx, row)
    if state is DeletionState.RESTORED:
        request_rows.forget_people(tx, row.sequence)
    tx.connection.execute(
        update(DELETIONS).where(DELETIONS.c.sequence == row.sequence).values({"state": str(state), f"{state}_at": at})
    )
    tx.event(_EVENTS[state], None, {"request": row.request_id})


def _require_earlier(connection: Connection, row: Row[Any], state: DeletionState) -> None:
    for earlier in connection.execute(_EARLIER, {"of_deletion": row.sequence}):
        if DeletionState(earlier.state).rank < state.rank:
            raise LedgerError(
                f"deletion {row.request_id} names records of the earlier deletion {earlier.request_id}, which is "
                f"{earlier.state}",
                f"move {earlier.request_id} to {state} first",
            )


def _purge(tx: Transaction, row: Row[Any]) -> None:
    """Erase what the ledger itself derived from the contents. LedgerError: known bytes are left.

    The database overwrites the erased rows later (SQLite's log at a checkpoint, PostgreSQL's rows at a vacuum).
    """
    connection = tx.connection
    hits = connection.execute(
        select(HITS.c.shard, HITS.c.slice, SLICES.c.file, SLICES.c.file_deletion)
        .join(SLICES, (SLICES.c.shard == HITS.c.shard) & (SLICES.c.slice == HITS.c.slice))
        .where(HITS.c.deletion == row.sequence)
        .order_by(HITS.c.shard, HITS.c.slice)
    ).all()
    for hit in hits:
        if hit.file is None or hit.file_deletion < row.sequence:
            raise LedgerError(
                f"deletion {row.request_id} is not purged: the file of shard {hit.shard}, slice {hit.slice} "
                f"({hit.file or 'none recorded'}) may hold its rows",
                "write the slice again without its tombstones and record the new file",
            )
    left = stage_rows.unpurged_before(connection, row.sequence, frozenset((hit.shard, hit.slice) for hit in hits))
    if left:
        raise LedgerError(
            f"deletion {row.request_id} is not purged: {len(left)} stages that saw its records are left, "
            f"the first {left[0]}",
            "erase their bytes and mark them purged",
        )
    for hit in hits:
        tombstones.bury(connection, (hit.shard, hit.slice), row.sequence, tx.keys)


def _ahead(state: DeletionState, links: list[tuple[str, DeletionState]]) -> tuple[str, ...]:
    """The linked requests that must advance before one in `state` can."""
    if state is DeletionState.RESTORED:
        return ()
    return tuple(request_id for request_id, reached in links if reached.rank <= state.rank)


def earlier_requests(connection: Connection, sequence: int) -> tuple[str, ...]:
    """Ids of earlier requests that deleted records which this one also names."""
    return tuple(row.request_id for row in connection.execute(_EARLIER, {"of_deletion": sequence}))


def _assemble(connection: Connection, chosen: Select[tuple[int]], known: Receipts) -> tuple[DeletionRow, ...]:
    """Deletions of the chosen sequence numbers, with their receipts and the requests they wait for."""
    rows = connection.execute(
        select(DELETIONS).where(DELETIONS.c.sequence.in_(chosen)).order_by(DELETIONS.c.sequence)
    ).all()
    receipts = {row.sequence: known[row.sequence] for row in rows if row.sequence in known}
    fresh = [row for row in rows if row.sequence not in receipts]
    if fresh:
        receipts |= _read_receipts(connection, fresh, chosen)
        if len(known) + len(fresh) > MOST_RECEIPTS:
            known.clear()
        known.update(receipts)
    links: dict[int, list[tuple[str, DeletionState]]] = defaultdict(list)
    linked = (
        select(LINKS.c.deletion, DELETIONS.c.request_id, DELETIONS.c.state)
        .join(DELETIONS, LINKS.c.earlier == DELETIONS.c.sequence)
        .where(LINKS.c.deletion.in_(chosen))
        .order_by(LINKS.c.earlier)
    )
    for row in connection.execute(linked):
        links[row.deletion].append((row.request_id, DeletionState(row.state)))
    return tuple(
        DeletionRow(
            receipts[row.sequence],
            DeletionState(row.state),
            DeletionTimes(row.accepted_at, row.pruned_at, row.purged_at, row.restored_at),
            _ahead(DeletionState(row.state), links[row.sequence]),
            row.sequence,
        )
        for row in rows
    )


def _read_receipts(connection: Connection, rows: Sequence[Row[Any]], chosen: Select[tuple[int]]) -> Receipts:
    """Receipts of these deletions, a subset of the chosen ones."""

    def of_rows(column: Column[Any]) -> Any:
        few = len(rows) <= _FEW
        return column.in_([row.sequence for row in rows] if few else chosen)

    hits: dict[int, list[Hit]] = defaultdict(list)
    query = select(HITS).where(of_rows(HITS.c.deletion)).order_by(HITS.c.deletion, HITS.c.shard, HITS.c.slice)
    for row in connection.execute(query):
        hits[row.deletion].append(Hit(row.shard, row.slice, row.records))
    pruned: dict[int, list[str]] = defaultdict(list)
    query = select(PRUNED).where(of_rows(PRUNED.c.deletion)).order_by(PRUNED.c.deletion, PRUNED.c.position)
    for row in connection.execute(query):
        pruned[row.deletion].append(row.stage)
    return {
        row.sequence: Receipt(
            row.request_id,
            row.accepted_at,
            row.records,
            row.already_deleted,
            row.unknown,
            tuple(hits[row.sequence]),
            tuple(pruned[row.sequence]),
        )
        for row in rows
    }


_ANY_IN = select(DELETIONS.c.sequence).where(DELETIONS.c.state == bindparam("state")).limit(1)
_BY_REQUEST = select(DELETIONS).where(DELETIONS.c.request_id == bindparam("of_request"))
_EARLIER = (
    select(DELETIONS.c.request_id, DELETIONS.c.state)
    .join(LINKS, LINKS.c.earlier == DELETIONS.c.sequence)
    .where(LINKS.c.deletion == bindparam("of_deletion"))
    .order_by(DELETIONS.c.sequence)
)
_COUNT = select(func.count()).select_from(DELETIONS).where(DELETIONS.c.state == bindparam("state"))
_FEW = 1000  # maximum sequence numbers bound to one statement
