"""The tombstones of records that are deleted and not purged yet.

In: the records that a deletion takes. Out: a row each, which says so from then on. The purge writes the
number of the deletion into the record's own row, which it has to touch anyway, and takes the tombstone
away: so the table stays small, and a deletion writes few pages however large the run is.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, update

from s3t_ray.ledger import sketches
from s3t_ray.ledger.resolve import Members, Place
from s3t_ray.ledger.schema import RECORDS, TOMBSTONES


def add(connection: Connection, records: Mapping[Place, Members], deletion: int) -> None:
    """Put the tombstone of this deletion on these records."""
    # In the order of the key, so that rows share pages; in the driver's own SQL, as in `pieces`.
    rows = [(*place, name) for place in sorted(records) for name in records[place].ids]
    for start in range(0, len(rows), _AT_ONCE):
        piece = rows[start : start + _AT_ONCE]
        values: tuple[Any, ...]
        if connection.dialect.name == "postgresql":
            new = f"SELECT *, {int(deletion)} FROM unnest(%s::bigint[], %s::bigint[], %s) AS new"
            values = tuple(map(list, zip(*piece, strict=True)))
        else:
            new = f"VALUES {','.join([f'(?,?,?,{int(deletion)})'] * len(piece))}"
            values = tuple(chain.from_iterable(piece))
        connection.exec_driver_sql(f"INSERT INTO s3t_tombstones (shard, slice, id_hmac, deletion) {new}", values)


def digests(connection: Connection, place: Place, after: int) -> frozenset[bytes]:
    """Digests of the records of this place that a deletion of a number above `after` took, and none has purged."""
    return frozenset(connection.scalars(_DIGESTS, {"of_shard": place[0], "of_slice": place[1], "after": after}))


def bury(connection: Connection, place: Place, deletion: int) -> None:
    """Erase what was derived from the contents of the records that this deletion took from this place.

    The HMACs of id and subject stay, so that a repeat is known as one.
    """
    bound = {"of_shard": place[0], "of_slice": place[1], "of_deletion": deletion}
    sketches.remove(connection, connection.scalars(_NAMES, bound).all())
    connection.execute(_ERASE, bound)
    connection.execute(_REMOVE, bound)


_AT_ONCE = 1000  # rows a statement: a third of the time of a row a statement
_HERE = (TOMBSTONES.c.shard == bindparam("of_shard"), TOMBSTONES.c.slice == bindparam("of_slice"))
_THESE = (*_HERE, TOMBSTONES.c.deletion == bindparam("of_deletion"))
_DIGESTS = (
    select(RECORDS.c.digest)
    .join(TOMBSTONES, TOMBSTONES.c.id_hmac == RECORDS.c.id_hmac)
    .where(*_HERE, TOMBSTONES.c.deletion > bindparam("after"))
)
_NAMES = select(TOMBSTONES.c.id_hmac).where(*_THESE)
_ERASE = (
    update(RECORDS)
    .where(RECORDS.c.id_hmac.in_(_NAMES))
    .values(deletion=bindparam("of_deletion"), digest=None, content_hmac=None)
)
_REMOVE = delete(TOMBSTONES).where(*_THESE)
