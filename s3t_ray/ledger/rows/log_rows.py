"""The run's log in the ledger: signed entries, each naming the one before it, appended by whoever has the keys.

`append` is the one way in: it is part of the transaction that does what the entry says, so there is never one
without the other, and the entries have the order of the commits.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection, Row, bindparam, select, update

from s3t_ray.errors import LedgerError, VerificationFailed
from s3t_ray.ledger.tables import DELETIONS, IDENTITY, LOG
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import StoredEntry
from s3t_ray.proof.run_log import claimed_key
from s3t_ray.proof.signed_entry import FIRST, ChainHead, SignedEntry, hash_of


class EntryKind(StrEnum):
    """Kinds of entries. Of one deletion there is at most one of each."""

    RUN = "run"  # the run begins, or its rows are sealed by a newer version
    RECEIPT = "receipt"
    INTERIM = "interim"  # certificate: purged
    CERTIFICATE = "certificate"  # final: restored


CERTIFYING = (EntryKind.INTERIM, EntryKind.CERTIFICATE)


class LogPosition(NamedTuple):
    """Where the next entry stands: the fields that all facts have."""

    sequence: int
    previous: str
    run: str
    run_id: str


EntryT = TypeVar("EntryT", bound=SignedEntry)


def append(tx: Transaction, kind: EntryKind, deletion: int | None, make: Callable[[LogPosition], EntryT]) -> EntryT:
    """Add the entry that `make` signs for the next place of the log; it is there when the transaction commits.

    `deletion`: number of the deletion that it is of. LedgerError: the ledger has no run yet.
    """
    row = tx.connection.exec_driver_sql(_NEXT).one_or_none()
    if row is None:
        raise LedgerError("the ledger has no run yet", "start the run first: its log begins with its records")
    entry = make(LogPosition((row.sequence or 0) + 1, row.hash or FIRST, row.name, row.run_id))
    text = entry.to_json()
    # In the driver's own SQL, as in `pieces`: every single deletion comes this way.
    mark = "%s" if tx.connection.dialect.name == "postgresql" else "?"
    tx.connection.exec_driver_sql(
        f"INSERT INTO s3t_log (sequence, kind, deletion, hash, entry) VALUES ({', '.join([mark] * 5)})",
        (entry.facts.sequence, str(kind), deletion, hash_of(text), text),
    )
    return entry


def read_text(connection: Connection, kind: EntryKind, deletion: int) -> str | None:
    """The text of a deletion's entry of this kind; None: there is none."""
    return connection.scalar(_ONE, {"of_kind": str(kind), "of_deletion": deletion})


def read_entries(connection: Connection, kinds: tuple[EntryKind, ...] = tuple(EntryKind)) -> tuple[StoredEntry, ...]:
    """See `Ledger.log`."""
    query = (
        select(LOG.c.sequence, LOG.c.kind, LOG.c.hash, DELETIONS.c.request_id, LOG.c.entry)
        .outerjoin(DELETIONS, LOG.c.deletion == DELETIONS.c.sequence)
        .where(LOG.c.kind.in_([str(kind) for kind in kinds]))
        .order_by(LOG.c.sequence)
    )
    return tuple(StoredEntry(*row) for row in connection.execute(query))


def read_head(connection: Connection) -> ChainHead:
    """See `Ledger.log_head`."""
    row = _newest(connection)
    return ChainHead() if row is None else ChainHead(sequence=row.sequence, hash=row.hash)


def read_hash(connection: Connection, sequence: int) -> str | None:
    """Hash of the entry of this number; None: the log does not reach it."""
    return connection.scalar(select(LOG.c.hash).where(LOG.c.sequence == sequence))


def require_key(connection: Connection, public_key: bytes) -> None:
    """VerificationFailed if the log was begun with another key."""
    first = connection.scalar(select(LOG.c.entry).order_by(LOG.c.sequence).limit(1))
    if first is not None and claimed_key(first) != public_key.hex():
        raise VerificationFailed(
            "the run's log was begun with another key than the one in keys.dir",
            "use the keys this run was started with (keys.dir)",
        )


def read_identity(connection: Connection) -> str:
    """See `Ledger.run_id`."""
    return str(connection.scalar(select(IDENTITY.c.run_id)))


def claim(tx: Transaction, place: str) -> str:
    """See `Ledger.claim`."""
    tx.connection.execute(update(IDENTITY).where(IDENTITY.c.place.is_(None)).values(place=place))
    return str(tx.connection.scalar(select(IDENTITY.c.place)))


def _newest(connection: Connection) -> Row[tuple[int, str]] | None:
    query = select(LOG.c.sequence, LOG.c.hash).order_by(LOG.c.sequence.desc()).limit(1)
    return connection.execute(query).one_or_none()  # type: ignore[return-value]


# Built once: building a statement takes longer than running it.
_NEXT = (
    "SELECT r.name, i.run_id, l.sequence, l.hash FROM s3t_run r JOIN s3t_identity i ON i.id = r.id "
    "LEFT JOIN s3t_log l ON l.sequence = (SELECT max(sequence) FROM s3t_log)"
)
_ONE = select(LOG.c.entry).where(LOG.c.kind == bindparam("of_kind"), LOG.c.deletion == bindparam("of_deletion"))
