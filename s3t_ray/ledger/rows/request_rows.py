"""Details of a deletion: reference, requester, reason and due date, one row per request.

In: details in clear text, with the run's keys. Out: the same. They are personal data, so they are encrypted under the
run's keys (ChaCha20-Poly1305); the due date is stored in clear text, for readers without the keys. One tag covers both,
the deletion and its request digest. Without the keys no one can read them, move a row to another deletion or change a
date, nor remove a row unnoticed, because rows are numbered with the history. Requester and reason are erased when the
deletion is restored; the reference, which identifies the requester's own case, stays.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Row, insert, select, update

from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger.database import Database
from s3t_ray.ledger.keys import LedgerKeys
from s3t_ray.ledger.tables import DELETIONS, REQUESTS
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import DeletionState


@dataclass(frozen=True, slots=True)
class RequestDetails:
    """Details of a request for a deletion."""

    reference: str | None = None  # the requester's own reference
    requester: str | None = None
    reason: str | None = None
    due_at: str | None = None  # UTC, ISO 8601 with microseconds


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request for a deletion."""

    deletion: int
    at: str
    details: RequestDetails | None  # None: there are no keys to ask for, or the row is not what they sealed
    due_at: str | None  # as it stands in the clear


class DeletionRequests:
    """The requests in one ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, deletions: Collection[int] | None = None) -> dict[int, tuple[RequestRow, ...]]:
        """Requests of these deletions (None: all), by number of the deletion, oldest first."""
        query = select(REQUESTS, DELETIONS.c.request_digest).join(
            DELETIONS, DELETIONS.c.sequence == REQUESTS.c.deletion
        )
        if deletions is not None and len(deletions) <= _FEW:
            query = query.where(REQUESTS.c.deletion.in_(deletions))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(REQUESTS.c.sequence)).all()
        found: dict[int, tuple[RequestRow, ...]] = {}
        for row in rows:
            if deletions is None or row.deletion in deletions:
                made = RequestRow(row.deletion, row.at, _revealed(row, self._database.keys), row.due_at)
                found[row.deletion] = (*found.get(row.deletion, ()), made)
        return found

    def due(self) -> dict[int, str]:
        """The earliest due date of each deletion that has one. Reads no details."""
        query = select(REQUESTS.c.deletion, REQUESTS.c.due_at).where(REQUESTS.c.due_at.is_not(None))
        found: dict[int, str] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                found[row.deletion] = min(row.due_at, found.get(row.deletion, row.due_at))
        return found


def add(tx: Transaction, deletion: int, details: RequestDetails) -> None:
    """Record a request with these details; repeating the same details changes nothing."""
    if details == RequestDetails():
        return
    row = tx.connection.execute(select(DELETIONS).where(DELETIONS.c.sequence == deletion)).one()
    if row.state == DeletionState.RESTORED:
        details = _without_people(details)
    known = tx.connection.execute(_OF_ONE.where(REQUESTS.c.deletion == deletion)).all()
    if any(_revealed(other, tx.keys) == details for other in known):
        return
    sequence = tx.next_sequence()
    sealed = tx.keys.hide(_written(details), _about(row.request_digest, deletion, sequence, tx.now, details.due_at))
    place = {"sequence": sequence, "deletion": deletion, "at": tx.now, "due_at": details.due_at}
    tx.connection.execute(insert(REQUESTS).values(**place, details=sealed))


def forget_people(tx: Transaction, deletion: int) -> None:
    """Erase requester and reason. A row that the keys did not seal stays, for an audit to find."""
    for row in tx.connection.execute(_OF_ONE.where(REQUESTS.c.deletion == deletion)).all():
        details = _revealed(row, tx.keys)
        if details is None:
            continue
        about = _about(row.request_digest, row.deletion, row.sequence, row.at, row.due_at)
        sealed = tx.keys.hide(_written(_without_people(details)), about)
        tx.connection.execute(update(REQUESTS).where(REQUESTS.c.sequence == row.sequence).values(details=sealed))


def broken_requests(connection: Connection, keys: LedgerKeys) -> Iterator[str]:
    """One line per row that the keys did not seal."""
    for row in connection.execute(_OF_ONE.order_by(REQUESTS.c.sequence)).all():
        if _revealed(row, keys) is None:
            yield f"the details of deletion {row.request_id} (row {row.sequence}) are not what was sealed"
    known = select(DELETIONS.c.sequence)
    for sequence in connection.scalars(select(REQUESTS.c.sequence).where(REQUESTS.c.deletion.not_in(known))).all():
        yield f"details (row {sequence}) belong to a deletion that the ledger does not have"


def _revealed(row: Row[tuple[object, ...]], keys: LedgerKeys | None) -> RequestDetails | None:
    if keys is None:
        return None
    about = _about(row.request_digest, row.deletion, row.sequence, row.at, row.due_at)
    try:
        said = json.loads(keys.reveal(row.details, about))
    except VerificationFailed:
        return None
    return RequestDetails(**said, due_at=row.due_at)


def _written(details: RequestDetails) -> str:
    """The details as JSON, padded so that the length does not reveal the length of the reason."""
    said = json.dumps({name: value for name, value in asdict(details).items() if name != "due_at"})
    return said + " " * (-len(said.encode()) % _PADDED)


def _about(request_digest: str, deletion: int, sequence: int, at: str, due_at: str | None) -> str:
    return json.dumps([request_digest, deletion, sequence, at, due_at])


def _without_people(details: RequestDetails) -> RequestDetails:
    return RequestDetails(reference=details.reference, due_at=details.due_at)


_PADDED = 256  # bytes
_FEW = 1000  # maximum numbers bound to one statement
_OF_ONE = select(REQUESTS, DELETIONS.c.request_digest, DELETIONS.c.request_id).join(
    DELETIONS, DELETIONS.c.sequence == REQUESTS.c.deletion
)
