"""Which records a deletion names: from id and subject HMACs to places, in batches, by index only.

Changes nothing. A request is the set of what it names: order and repeats do not count, and its
digest is what makes the same request the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, Connection

from s3t_ray.errors import DataError, LedgerError
from s3t_ray.ledger.lthash import MEMBER_BYTES
from s3t_ray.ledger.records import BATCH
from s3t_ray.ledger.schema import RECORDS
from s3t_ray.ledger.values import Hit

_DOMAIN = b"s3t/request/1"

Place = tuple[int, int]
"""(shard, slice)"""


@dataclass(frozen=True, slots=True)
class Request:
    """What a deletion names, each once, sorted."""

    ids: tuple[bytes, ...]
    subjects: tuple[bytes, ...]

    @classmethod
    def of(cls, ids: Sequence[bytes], subjects: Sequence[bytes]) -> Request:
        """DataError: it names nothing. LedgerError: an HMAC of the wrong length."""
        if not ids and not subjects:
            raise DataError("the deletion names no record and no subject", "give at least one id or subject")
        if wrong := {len(name) for name in (*ids, *subjects)} - {MEMBER_BYTES}:
            raise LedgerError(
                f"ids and subjects are HMACs of {MEMBER_BYTES} bytes, got {min(wrong)} bytes",
                "make them with Keys.id_hmac and Keys.subject_hmac",
            )
        return cls(tuple(sorted(set(ids))), tuple(sorted(set(subjects))))

    @property
    def digest(self) -> str:
        """SHA-256, in hex. It tells nothing about the ids: they are keyed HMACs already."""
        hasher = hashlib.sha256(_DOMAIN)
        for names in (self.ids, self.subjects):
            hasher.update(len(names).to_bytes(8, "big"))
            for name in names:
                hasher.update(name)
        return hasher.hexdigest()


@dataclass
class Resolved:
    """What a request means in this run, now."""

    ids: list[bytes] = field(default_factory=list)  # of retained records: what would be deleted
    digests: dict[Place, list[bytes]] = field(default_factory=dict)  # of the same, by place
    already_deleted: int = 0
    earlier: set[int] = field(default_factory=set)  # deletions that removed those
    unknown_ids: tuple[bytes, ...] = ()
    unknown_subjects: tuple[bytes, ...] = ()

    @property
    def places(self) -> frozenset[Place]:
        return frozenset(self.digests)

    @property
    def unknown(self) -> int:
        return len(self.unknown_ids) + len(self.unknown_subjects)

    @property
    def hits(self) -> tuple[Hit, ...]:
        return tuple(Hit(*place, len(self.digests[place])) for place in sorted(self.digests))


def resolve(connection: Connection, request: Request) -> Resolved:
    """Look up every name of the request."""
    found = Resolved()
    ids: set[bytes] = set()
    subjects: set[bytes] = set()
    for identity, _, *rest in _rows(connection, RECORDS.c.id_hmac, request.ids):
        ids.add(identity)
        _note(found, identity, *rest)
    for identity, subject, *rest in _rows(connection, RECORDS.c.subject_hmac, request.subjects):
        subjects.add(subject)
        if identity not in ids:
            _note(found, identity, *rest)
    found.unknown_ids = tuple(name for name in request.ids if name not in ids)
    found.unknown_subjects = tuple(name for name in request.subjects if name not in subjects)
    return found


def mark_deleted(connection: Connection, ids: Sequence[bytes], deletion: int) -> None:
    """Put the tombstone of this deletion on these records."""
    for names, values in _pieces(connection, RECORDS.c.id_hmac, ids):
        connection.exec_driver_sql(f"UPDATE s3t_records SET deletion = {int(deletion)} WHERE {names}", values)


def _rows(connection: Connection, column: Column[Any], names: Sequence[bytes]) -> Iterator[Any]:
    """(id, subject, digest, shard, slice, deletion) of the records so named."""
    for wanted, values in _pieces(connection, column, names):
        yield from connection.exec_driver_sql(
            f"SELECT id_hmac, subject_hmac, digest, shard, slice, deletion FROM s3t_records WHERE {wanted}",
            values,
        )


def _pieces(
    connection: Connection, column: Column[Any], names: Sequence[bytes]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Conditions on so many names that they can be bound to one statement, with the values to bind.

    In the driver's own SQL: compiling a list of thousands of values takes SQLAlchemy longer than
    the database needs to answer it.
    """
    for start in range(0, len(names), BATCH):
        piece = names[start : start + BATCH]
        if connection.dialect.name == "postgresql":
            yield f"{column.name} = ANY(%s)", (list(piece),)
        else:
            yield f"{column.name} IN ({','.join('?' * len(piece))})", tuple(piece)


def _note(found: Resolved, identity: bytes, digest: bytes, shard: int, index: int, deletion: int | None) -> None:
    if deletion is None:
        found.ids.append(identity)
        found.digests.setdefault((shard, index), []).append(digest)
    else:
        found.already_deleted += 1
        found.earlier.add(deletion)
