"""Which records a deletion names: from id and subject HMACs to places, in batches, by index only.

Changes nothing. A request is the set of what it names: order and repeats do not count, and its
digest is what makes the same request the same.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection

from s3t_ray.errors import DataError, LedgerError
from s3t_ray.ledger.lthash import MEMBER_BYTES, LtHash16
from s3t_ray.ledger.pieces import in_one_piece, pieces
from s3t_ray.ledger.schema import RECORDS
from s3t_ray.ledger.values import NAMED_ALONE, Closure, Hit, Reach

_DOMAIN = b"s3t/request/1"

Place = tuple[int, int]
"""(shard, slice)"""


class RecordRow(NamedTuple):
    """One row of `s3t_records`."""

    identity: bytes
    subject: bytes | None
    content: bytes | None  # HMAC; None: erased
    digest: bytes  # nobody asks for it where it is erased
    shard: int
    slice: int
    deletion: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """What a deletion names, each once, sorted, and what it takes along."""

    ids: tuple[bytes, ...]
    subjects: tuple[bytes, ...]
    closure: Closure = NAMED_ALONE

    @classmethod
    def of(cls, ids: Sequence[bytes], subjects: Sequence[bytes], closure: Closure = NAMED_ALONE) -> Request:
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
        """SHA-256, in hex. It tells nothing about the ids: they are keyed HMACs already."""
        hasher = hashlib.sha256(_DOMAIN)
        for names in (self.ids, self.subjects):
            hasher.update(len(names).to_bytes(8, "big"))
            hasher.update(b"".join(names))
        # What is alike changes with every deletion, so the request is what was asked, not what it found.
        if self.closure.reach is Reach.DUPLICATES:
            hasher.update(b"duplicates")
        elif self.closure.reach is Reach.NEAR_DUPLICATES:
            hasher.update(f"near-duplicates from {self.closure.threshold!r}".encode())
        return hasher.hexdigest()


@dataclass
class Resolved:
    """What a request means in this run, now."""

    ids: list[bytes] = field(default_factory=list)  # of retained records: what would be deleted
    digests: dict[Place, list[bytes]] = field(default_factory=dict)  # of the same, by place
    sums: dict[Place, LtHash16] = field(default_factory=dict)  # of the first `members` of those, as far as known
    already_deleted: int = 0
    earlier: set[int] = field(default_factory=set)  # deletions that removed those
    unknown_ids: tuple[bytes, ...] = ()
    unknown_subjects: tuple[bytes, ...] = ()
    named: dict[bytes, bytes | None] = field(default_factory=dict)  # id HMAC -> content HMAC, of all records found

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
    for row in rows_of(connection, RECORDS.c.id_hmac, request.ids):
        note(found, row)
    _add_subjects(connection, found, request)
    return found


def _add_subjects(connection: Connection, found: Resolved, request: Request) -> None:
    """Count in the records of the request's subjects, once its ids are; then it is known what is unknown."""
    found.unknown_ids = _not_found(found, request.ids)
    ids = frozenset(found.named) if request.subjects else frozenset()
    subjects: set[bytes | None] = set()
    for row in rows_of(connection, RECORDS.c.subject_hmac, request.subjects):
        subjects.add(row.subject)
        if row.identity not in ids:
            note(found, row)
    found.unknown_subjects = tuple(name for name in request.subjects if name not in subjects)


def _not_found(found: Resolved, ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Those of the ids, each there once, that have not been found; as long as nothing else was looked up."""
    if len(found.named) == len(ids):
        return ()
    return tuple(name for name in ids if name not in found.named)


def take(connection: Connection, request: Request, deletion: int) -> tuple[Resolved, int]:
    """`resolve`, with the tombstone of this deletion on the retained records that are named by their id.

    Also how many of `Resolved.ids` have it: the others are named by their subject (`mark_deleted`). One
    statement finds and marks them, since most of a large deletion's time goes into looking up its records.
    """
    found = Resolved()
    if in_one_piece(request.ids):
        for _ in _mark_named(connection, found, request.ids, deletion):
            pass
    else:
        # The database lets go of the interpreter while it works: the sums of one piece, beside the next piece.
        with ThreadPoolExecutor(1) as beside:
            sums = [
                beside.submit(_add_up, found.sums, taken)
                for taken in _mark_named(connection, found, request.ids, deletion)
            ]
        for each in sums:
            each.result()
    marked = len(found.ids)
    for record in rows_of(connection, RECORDS.c.id_hmac, _not_found(found, request.ids)):
        note(found, record)
    _add_subjects(connection, found, request)
    return found, marked


def _mark_named(
    connection: Connection, found: Resolved, ids: Sequence[bytes], deletion: int
) -> Iterator[Mapping[Place, list[bytes]]]:
    """Mark and count in the retained records of these ids, a piece at a time; the digests of each piece."""
    for wanted, values in pieces(connection, RECORDS.c.id_hmac, ids):
        statement = (
            f"UPDATE s3t_records SET deletion = {int(deletion)} WHERE {wanted} AND deletion IS NULL "
            "RETURNING id_hmac, content_hmac, digest, shard, slice"
        )
        rows = connection.exec_driver_sql(statement, values).cursor.fetchall()  # plain tuples: nothing wraps them
        found.named.update((row[0], row[1]) for row in rows)
        found.ids += [row[0] for row in rows]
        taken: dict[Place, list[bytes]] = defaultdict(list)
        for _, _, digest, shard, index in rows:
            taken[shard, index].append(digest)
        for place, digests in taken.items():
            found.digests.setdefault(place, []).extend(digests)
        yield taken


def _add_up(sums: dict[Place, LtHash16], taken: Mapping[Place, list[bytes]]) -> None:
    for place, digests in taken.items():
        sums.setdefault(place, LtHash16()).add(digests)


def rows_of(connection: Connection, column: Column[Any], names: Sequence[bytes]) -> Iterator[RecordRow]:
    """The records whose `column` is one of these."""
    for wanted, values in pieces(connection, column, names):
        rows = connection.exec_driver_sql(
            "SELECT id_hmac, subject_hmac, content_hmac, digest, shard, slice, deletion FROM s3t_records "
            f"WHERE {wanted}",
            values,
        )
        yield from map(RecordRow._make, rows)


def note(found: Resolved, row: RecordRow) -> None:
    """Count a record in."""
    found.named[row.identity] = row.content
    if row.deletion is None:
        found.ids.append(row.identity)
        found.digests.setdefault((row.shard, row.slice), []).append(row.digest)
    else:
        found.already_deleted += 1
        found.earlier.add(row.deletion)


def deleted(connection: Connection, ids: Sequence[bytes], subjects: Sequence[bytes]) -> frozenset[bytes]:
    """See `Ledger.deleted`."""
    of_ids = (row.identity for row in rows_of(connection, RECORDS.c.id_hmac, ids) if row.deletion is not None)
    of_subjects = (
        row.subject for row in rows_of(connection, RECORDS.c.subject_hmac, subjects) if row.deletion is not None
    )
    return frozenset(name for name in (*of_ids, *of_subjects) if name is not None)


def mark_deleted(connection: Connection, ids: Sequence[bytes], deletion: int) -> None:
    """Put the tombstone of this deletion on these records."""
    for names, values in pieces(connection, RECORDS.c.id_hmac, ids):
        connection.exec_driver_sql(f"UPDATE s3t_records SET deletion = {int(deletion)} WHERE {names}", values)
