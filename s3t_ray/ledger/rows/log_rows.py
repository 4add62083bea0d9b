"""The run's log in the ledger: signed entries, each naming the one before it, appended by processes that have the keys.

Only `append` adds entries. It is part of the transaction that the entry describes, so there is never one without the
other, and entries follow the order of commits.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Row, bindparam, select, update

from s3t_ray.errors import LedgerError, VerificationFailed
from s3t_ray.ledger.tables import DELETIONS, IDENTITY, LOG
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import StoredEntry
from s3t_ray.proof.key_entry import keys_of
from s3t_ray.proof.run_log import claimed_key, claimed_next_key, name_of, parse_entry
from s3t_ray.proof.signed_entry import FIRST, ChainHead, SignedEntry, check_signature, hash_of, pem_of


class EntryKind(StrEnum):
    """Kinds of entries. Each deletion has at most one of each."""

    RUN = "run"  # the run starts, or a newer version seals its rows
    RECEIPT = "receipt"
    INTERIM = "interim"  # certificate: purged
    CERTIFICATE = "certificate"  # final: restored
    KEY = "key"  # another key signs from now on
    EXPORT = "export"  # weights left the storage, or their files are gone


CERTIFYING = (EntryKind.INTERIM, EntryKind.CERTIFICATE)


class LogPosition(NamedTuple):
    """The position of the next entry: the fields that all facts have."""

    sequence: int
    previous: str
    run: str
    run_id: str


EntryT = TypeVar("EntryT", bound=SignedEntry)


def append(tx: Transaction, kind: EntryKind, deletion: int | None, make: Callable[[LogPosition], EntryT]) -> EntryT:
    """Add the entry that `make` signs for the next position in the log; the transaction commits it.

    `deletion`: number of its deletion. LedgerError: the ledger has no run yet, or another key signs for it by now.
    """
    row = read_next(tx)
    if row.entry is not None and not _signs_next(tx.keys.public_key.hex(), row.kind, row.entry):
        raise LedgerError(
            "the run's signing key was changed, but this process has the old one: nothing was done",
            "restart it so that it reads the new keys (`s3t rotate-key` replaced them)",
        )
    return append_next(tx, kind, deletion, make, row)


def read_next(tx: Transaction) -> Row[Any]:
    """The values that the next entry builds on. LedgerError: the ledger has no run yet."""
    row = tx.connection.exec_driver_sql(_NEXT).one_or_none()
    if row is None:
        raise LedgerError("the ledger has no run yet", "start the run first: its log begins with its records")
    return row


def append_next(
    tx: Transaction, kind: EntryKind, deletion: int | None, make: Callable[[LogPosition], EntryT], row: Row[Any]
) -> EntryT:
    """`append`, with any signing key. `row`: from `read_next`."""
    entry = make(LogPosition((row.sequence or 0) + 1, row.hash or FIRST, row.name, row.run_id))
    text = entry.to_json()
    # In the driver's own SQL, as in `pieces`, because every deletion runs this.
    mark = "%s" if tx.connection.dialect.name == "postgresql" else "?"
    tx.connection.exec_driver_sql(
        f"INSERT INTO s3t_log (sequence, kind, deletion, hash, entry) VALUES ({', '.join([mark] * 5)})",
        (entry.facts.sequence, str(kind), deletion, hash_of(text), text),
    )
    return entry


def read_text(connection: Connection, kind: EntryKind, deletion: int) -> str | None:
    """The text of a deletion's entry of this kind, or None."""
    return connection.scalar(_ONE, {"of_kind": str(kind), "of_deletion": deletion})


def read_entries(connection: Connection, kinds: tuple[EntryKind, ...] | None = None) -> tuple[StoredEntry, ...]:
    """See `Ledger.log`."""
    query = _ENTRIES if kinds is None else _ENTRIES.where(LOG.c.kind.in_([str(kind) for kind in kinds]))
    query = query.order_by(LOG.c.sequence)
    return tuple(StoredEntry(*row) for row in connection.execute(query))


def read_after(connection: Connection, sequence: int) -> tuple[StoredEntry, ...]:
    """See `Ledger.log_after`."""
    query = _ENTRIES.where(LOG.c.sequence > sequence).order_by(LOG.c.sequence)
    return tuple(StoredEntry(*row) for row in connection.execute(query))


def read_entries_of(connection: Connection, request_id: str) -> tuple[StoredEntry, ...]:
    """See `Ledger.log_of`."""
    query = (
        select(LOG.c.sequence, LOG.c.kind, LOG.c.hash, DELETIONS.c.request_id, LOG.c.entry)
        .join(DELETIONS, LOG.c.deletion == DELETIONS.c.sequence)
        .where(DELETIONS.c.request_id == request_id)
        .order_by(LOG.c.sequence)
    )
    return tuple(StoredEntry(*row) for row in connection.execute(query))


def read_numbered(connection: Connection, sequence: int) -> StoredEntry | None:
    """The entry with this number; None: the log is shorter."""
    query = (
        select(LOG.c.sequence, LOG.c.kind, LOG.c.hash, DELETIONS.c.request_id, LOG.c.entry)
        .outerjoin(DELETIONS, LOG.c.deletion == DELETIONS.c.sequence)
        .where(LOG.c.sequence == sequence)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else StoredEntry(*row)


def read_head(connection: Connection) -> ChainHead:
    """See `Ledger.log_head`."""
    row = _newest(connection)
    return ChainHead() if row is None else ChainHead(sequence=row.sequence, hash=row.hash)


def read_length(connection: Connection) -> int:
    """See `Ledger.log_length`."""
    newest = _newest(connection)
    return 0 if newest is None else newest.sequence


def read_hash(connection: Connection, sequence: int) -> str | None:
    """Hash of the entry with this number; None: the log is shorter."""
    return connection.scalar(select(LOG.c.hash).where(LOG.c.sequence == sequence))


def signing_key(connection: Connection) -> str | None:
    """Public key (hex) that signs the next entry, according to the log; None: there is no log."""
    changed = connection.scalar(
        select(LOG.c.entry).where(LOG.c.kind == str(EntryKind.KEY)).order_by(LOG.c.sequence.desc()).limit(1)
    )
    if changed is not None:
        return claimed_next_key(changed)
    first = connection.scalar(select(LOG.c.entry).order_by(LOG.c.sequence).limit(1))
    return None if first is None else claimed_key(first)


def genuine(connection: Connection, text: str, public_key: bytes) -> SignedEntry:
    """The entry in `text`, after checking that the log's key signed it. VerificationFailed.

    `public_key`: the current signing key (32 raw bytes). Entries of earlier keys are checked against the key changes.
    """
    entry = parse_entry(text)
    keys = None  # use the key in the entry
    if entry.public_key != public_key.hex():
        changed = select(LOG.c.entry).where(LOG.c.kind == str(EntryKind.KEY)).order_by(LOG.c.sequence)
        keys = keys_of(pem_of(public_key), [parse_entry(each) for each in connection.scalars(changed)])
    check_signature(entry, name_of(entry), keys)
    return entry


def require_key(connection: Connection, public_key: bytes) -> None:
    """VerificationFailed if the log was started with another key, or has since switched to another one."""
    signs = signing_key(connection)
    if signs is not None and signs != public_key.hex():
        raise VerificationFailed(
            "the run's log was begun with another key than the one in keys.dir, or is signed with another one since",
            "use the keys this run was started with (keys.dir), or those that `s3t rotate-key` made for it",
        )


def _signs_next(key: str, kind: str, newest: str) -> bool:
    """Whether this key follows the newest entry, by its canonical text."""
    field = "next_key" if kind == EntryKind.KEY else "public_key"
    return f'"{field}":"{key}"' in newest


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
    "SELECT r.name, i.run_id, l.sequence, l.hash, l.kind, l.entry FROM s3t_run r JOIN s3t_identity i ON i.id = r.id "
    "LEFT JOIN s3t_log l ON l.sequence = (SELECT max(sequence) FROM s3t_log)"
)
_ENTRIES = select(LOG.c.sequence, LOG.c.kind, LOG.c.hash, DELETIONS.c.request_id, LOG.c.entry).outerjoin(
    DELETIONS, LOG.c.deletion == DELETIONS.c.sequence
)
_ONE = select(LOG.c.entry).where(LOG.c.kind == bindparam("of_kind"), LOG.c.deletion == bindparam("of_deletion"))
