"""Reading the run's history: what happened, in the order of commits, for status and pictures."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, select

from s3t_ray.ledger.tables import EVENTS
from s3t_ray.ledger.values import Event


def read_events(connection: Connection, after: int, kinds: Collection[str] | None) -> tuple[Event, ...]:
    """Events with a sequence number above `after`, of these kinds (None: of all), in order."""
    query = select(EVENTS).where(EVENTS.c.sequence > after).order_by(EVENTS.c.sequence)
    if kinds is not None:
        query = query.where(EVENTS.c.kind.in_(sorted(kinds)))
    rows = connection.execute(query)
    return tuple(Event(row.sequence, row.at, row.kind, row.shard, row.detail) for row in rows)
