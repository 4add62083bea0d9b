"""Records similar to those that a deletion names: exact duplicates and near-duplicates, found by index only.

Duplicates have the same content HMAC; near-duplicates come from `minhash_index.py`. Nothing is deleted that was not
requested: `preview` lists similar records, and only a request whose `DuplicateSearch` says so includes them. This goes
one step: a record similar to a near-duplicate, but not to a named record, is not found.

A record's content HMAC and sketch are erased when its deletion is purged. After that, its duplicates can no longer be
found (`Preview.forgotten`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from s3t_ray.errors import LedgerError
from s3t_ray.ledger import minhash_index
from s3t_ray.ledger.resolve import RecordRow, Resolved, SealOf, note, others_of_content, require_sealed, rows_of
from s3t_ray.ledger.tables import RECORDS
from s3t_ray.ledger.values import DuplicateSearch, Reach, Twins


@dataclass(frozen=True)
class Alike:
    """Records similar to the named ones but not named themselves, retained or deleted earlier."""

    duplicates: tuple[RecordRow, ...]
    near_duplicates: tuple[RecordRow, ...] | None  # None: the run's records were not sketched
    forgotten: int


def find(
    connection: Connection, found: Resolved, threshold: float, sketch_seal: minhash_index.SketchSeal | None = None
) -> Alike:
    """All records similar to those found; near-duplicates have a similarity of at least `threshold`."""
    duplicates = _duplicates(connection, found)
    sketching = minhash_index.read(connection)
    near: tuple[RecordRow, ...] | None = None
    if sketching is not None:
        names = minhash_index.alike(connection, sketching, found.named, threshold, sketch_seal)
        names -= {row.identity for row in duplicates}
        near = tuple(rows_of(connection, RECORDS.c.id_hmac, sorted(names)))
    return Alike(duplicates, near, sum(content is None for content in found.named.values()))


def take_along(
    connection: Connection,
    found: Resolved,
    closure: DuplicateSearch,
    seal_of: SealOf | None = None,
    sketch_seal: minhash_index.SketchSeal | None = None,
) -> int:
    """Add the records requested by `closure` to `found`. Returns how many were retained. `seal_of`: see `resolve`.

    `sketch_seal`: see `minhash_index.alike`. LedgerError: near-duplicates are requested, but the run has no
    sketches.
    """
    named = found.records
    if closure.reach is Reach.NAMED:
        return 0
    if closure.reach is Reach.DUPLICATES:
        extra = _duplicates(connection, found)
    else:
        alike = find(connection, found, closure.threshold, sketch_seal)
        if alike.near_duplicates is None:
            raise LedgerError(
                "the records of this run were read in without sketches (closure.near_duplicates: false): "
                "near-duplicates cannot be told",
                "name their ids, or delete only exact duplicates; a new run can have sketches",
            )
        extra = (*alike.duplicates, *alike.near_duplicates)
    if seal_of is not None:
        require_sealed(extra, seal_of)
    note(found, extra)
    return found.records - named


def _duplicates(connection: Connection, found: Resolved) -> tuple[RecordRow, ...]:
    return tuple(row for row in others_of_content(connection, found.named) if row.identity not in found.named)


def twins(rows: Iterable[RecordRow], going: frozenset[bytes]) -> Twins:
    """The retained records among these that are not in `going`, counted by subject."""
    subjects = Counter(row.subject for row in rows if row.deletion is None and row.identity not in going)
    ordered = sorted(subjects.items(), key=lambda item: (-item[1], item[0] or b""))
    return Twins(sum(subjects.values()), tuple(ordered))
