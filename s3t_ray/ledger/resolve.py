"""Which records a deletion names: from id and subject HMACs to places, in batches, by index only.

Changes nothing. A request is a set of names: order and repeats do not count, and its digest identifies it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection

from s3t_ray.errors import DataError, LedgerError
from s3t_ray.ledger.lthash import MEMBER_BYTES
from s3t_ray.ledger.query_batches import BATCH
from s3t_ray.ledger.tables import RECORDS
from s3t_ray.ledger.values import NAMED_ALONE, DuplicateSearch, Hit, Reach

_DOMAIN = b"s3t/request/1"
REQUEST_ID_CHARACTERS = 16

_Row = tuple[bytes, bytes | None, bytes | None, bytes, int, int, int | None, bytes | None]

SealOf = Callable[[bytes, bytes | None, int, int], bytes]
"""The seal that a record's row must have: see `LedgerKeys.row_seal`."""

Place = tuple[int, int]
"""(shard, slice)"""


class RecordRow(NamedTuple):
    """One row of `s3t_records`, with its tombstone if it has one."""

    identity: bytes
    subject: bytes | None
    content: bytes | None  # HMAC; None: erased
    digest: bytes  # not used if erased
    shard: int
    slice: int
    deletion: int | None  # null: retained
    seal: bytes | None


@dataclass(frozen=True, slots=True)
class NamedRows:
    """The names in a deletion, sorted and without repeats, and its search for duplicates."""

    ids: tuple[bytes, ...]
    subjects: tuple[bytes, ...]
    closure: DuplicateSearch = NAMED_ALONE

    @classmethod
    def of(cls, ids: Sequence[bytes], subjects: Sequence[bytes], closure: DuplicateSearch = NAMED_ALONE) -> NamedRows:
        """DataError: it names nothing. LedgerError: an HMAC of the wrong length."""
        if not ids and not subjects:
            raise DataError("the deletion names no record and no subject", "give at least one id or subject")
        if wrong := {len(name) for name in (*ids, *subjects)} - {MEMBER_BYTES}:
            raise LedgerError(
                f"ids and subjects are HMACs of {MEMBER_BYTES} bytes, got {min(wrong)} bytes",
                "make them with Keys.id_hmac and Keys.subject_hmac",
            )
        return cls(tuple(sorted(set(ids))), tuple(sorted(set(subjects))), closure)

    @property
    def digest(self) -> str:
        """SHA-256, in hex. Reveals nothing about the ids, which are keyed HMACs."""
        hasher = hashlib.sha256(_DOMAIN)
        for names in (self.ids, self.subjects):
            hasher.update(len(names).to_bytes(8, "big"))
            hasher.update(b"".join(names))
        # Similar records change with every deletion, so the digest covers the request, not its result.
        if self.closure.reach is Reach.DUPLICATES:
            hasher.update(b"duplicates")
        elif self.closure.reach is Reach.NEAR_DUPLICATES:
            hasher.update(f"near-duplicates from {self.closure.threshold!r}".encode())
        return hasher.hexdigest()

    @property
    def request_id(self) -> str:
        """Id of the deletion."""
        return self.digest[:REQUEST_ID_CHARACTERS]


@dataclass(slots=True)
class Members:
    """Records of one place, in two parallel lists, because one object per row would burden the garbage collector."""

    ids: list[bytes] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)


@dataclass
class Resolved:
    """The records that a request currently refers to in this run."""

    retained: dict[Place, Members] = field(default_factory=dict)  # records to delete, by place
    already_deleted: int = 0
    earlier: set[int] = field(default_factory=set)  # deletions that removed them
    unknown_ids: tuple[bytes, ...] = ()
    unknown_subjects: tuple[bytes, ...] = ()
    named: dict[bytes, bytes | None] = field(default_factory=dict)  # id HMAC -> content HMAC, of all records found

    @property
    def records(self) -> int:
        """Retained records."""
        return sum(len(members.ids) for members in self.retained.values())

    @property
    def ids(self) -> Iterator[bytes]:
        """Id HMACs of the retained records."""
        return (name for members in self.retained.values() for name in members.ids)

    @property
    def places(self) -> frozenset[Place]:
        return frozenset(self.retained)

    @property
    def unknown(self) -> int:
        return len(self.unknown_ids) + len(self.unknown_subjects)

    @property
    def hits(self) -> tuple[Hit, ...]:
        return tuple(Hit(*place, len(self.retained[place].ids)) for place in sorted(self.retained))


def resolve(connection: Connection, request: NamedRows, seal_of: SealOf | None = None) -> Resolved:
    """Look up every name in the request. With `seal_of`, each row found must have its seal (LedgerError)."""
    found = Resolved()
    for rows in _fetch(connection, RECORDS.c.id_hmac, request.ids):
        if seal_of is not None:
            require_sealed(rows, seal_of)
        note(found, rows)
    found.unknown_ids = _not_found(found, request.ids)
    ids = frozenset(found.named) if request.subjects else frozenset()
    subjects: set[bytes | None] = set()
    for rows in _fetch(connection, RECORDS.c.subject_hmac, request.subjects):
        if seal_of is not None:
            require_sealed(rows, seal_of)
        subjects.update(row[1] for row in rows)
        note(found, [row for row in rows if row[0] not in ids])
    found.unknown_subjects = tuple(name for name in request.subjects if name not in subjects)
    return found


def _not_found(found: Resolved, ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The ids, without repeats, that were not found. Valid only before anything else is looked up."""
    if len(found.named) == len(ids):
        return ()
    return tuple(name for name in ids if name not in found.named)


def rows_of(connection: Connection, column: Column[Any], names: Sequence[bytes]) -> Iterator[RecordRow]:
    """The records whose `column` is one of these."""
    for rows in _fetch(connection, column, names):
        yield from map(RecordRow._make, rows)


def others_of_content(connection: Connection, named: Mapping[bytes, bytes | None]) -> Iterator[RecordRow]:
    """Other records with the content of one of these (id HMAC -> content HMAC), each once; some may be named too.

    The database leaves out one named record per content, usually the only one: reading all of them again took a quarter
    of a large deletion.
    """
    # One pair per content: with one per record, n named records with one content would be n * n rows.
    pairs = list({content: identity for identity, content in named.items() if content is not None}.items())
    for start in range(0, len(pairs), BATCH):
        piece = pairs[start : start + BATCH]
        values: tuple[Any, ...]
        if connection.dialect.name == "postgresql":
            wanted = "unnest(%s, %s) AS wanted (column1, column2)"
            values = ([content for content, _ in piece], [identity for _, identity in piece])
        else:
            wanted = f"(VALUES {','.join(['(?,?)'] * len(piece))}) AS wanted"
            values = tuple(chain.from_iterable(piece))
        statement = _ROWS.format(wanted=wanted, column="content_hmac", name="column1")
        statement += " AND r.id_hmac <> wanted.column2"
        yield from map(RecordRow._make, connection.exec_driver_sql(statement, values).cursor.fetchall())


def _fetch(connection: Connection, column: Column[Any], names: Sequence[bytes]) -> Iterator[Sequence[_Row]]:
    """The same as plain tuples, one batch at a time, without wrapping."""
    for start in range(0, len(names), BATCH):
        piece = tuple(names[start : start + BATCH])
        if connection.dialect.name == "postgresql":
            statement = _ROWS.format(wanted="unnest(%s) AS wanted (name)", column=column.name, name="name")
            yield connection.exec_driver_sql(statement, (list(piece),)).cursor.fetchall()
        else:
            # As a table, not as "IN (...)", for which SQLite first builds an index.
            table = f"(VALUES {','.join(['(?)'] * len(piece))}) AS wanted"
            statement = _ROWS.format(wanted=table, column=column.name, name="column1")
            yield connection.exec_driver_sql(statement, piece).cursor.fetchall()


def require_sealed(rows: Iterable[_Row], seal_of: SealOf) -> None:
    """LedgerError if the run's keys did not seal one of these rows, which may be another person's record."""
    wrong = sum(row[7] != seal_of(row[0], row[1], row[4], row[5]) for row in rows)
    if wrong:
        raise LedgerError(
            f"{wrong} of the records named have another id, subject or place in the ledger than the run's keys sealed: "
            "their rows were changed outside the run; nothing was deleted",
            "run `s3t audit` to investigate, and restore the ledger from a copy; a deletion would hit other people's "
            "records",
        )


def note(found: Resolved, rows: Iterable[_Row]) -> None:
    """Add these records to `found`."""
    named, retained = found.named, found.retained
    for identity, _, content, digest, shard, index, deletion, _ in rows:
        named[identity] = content
        if deletion is None:
            members = retained.get((shard, index))
            if members is None:
                members = retained[shard, index] = Members()
            members.ids.append(identity)
            members.digests.append(digest)
        else:
            found.already_deleted += 1
            found.earlier.add(deletion)


def retained(connection: Connection, ids: Sequence[bytes], subjects: Sequence[bytes]) -> Counter[bytes]:
    """See `Ledger.retained`."""
    of_ids = (row.identity for row in rows_of(connection, RECORDS.c.id_hmac, ids) if row.deletion is None)
    of_subjects = (row.subject for row in rows_of(connection, RECORDS.c.subject_hmac, subjects) if row.deletion is None)
    return Counter(name for name in (*of_ids, *of_subjects) if name is not None)


def deleted(
    connection: Connection, ids: Sequence[bytes], subjects: Sequence[bytes], but: frozenset[int]
) -> frozenset[bytes]:
    """See `Ledger.deleted`."""
    no = but | {None}
    of_ids = (row.identity for row in rows_of(connection, RECORDS.c.id_hmac, ids) if row.deletion not in no)
    of_subjects = (
        row.subject for row in rows_of(connection, RECORDS.c.subject_hmac, subjects) if row.deletion not in no
    )
    return frozenset(name for name in (*of_ids, *of_subjects) if name is not None)


_ROWS = (
    "SELECT r.id_hmac, r.subject_hmac, r.content_hmac, r.digest, r.shard, r.slice, "
    "coalesce(r.deletion, t.deletion), r.seal "
    "FROM {wanted} CROSS JOIN s3t_records r "
    "LEFT JOIN s3t_tombstones t ON t.shard = r.shard AND t.slice = r.slice AND t.id_hmac = r.id_hmac "
    "WHERE r.{column} = wanted.{name}"
)
