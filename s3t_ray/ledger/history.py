"""Reading the run's history: what happened, in the order of commits, for status and pictures."""

from __future__ import annotations

from sqlalchemy import Connection, select

from s3t_ray.ledger.schema import EVENTS
from s3t_ray.ledger.values import Event


def read_events(connection: Connection, after: int) -> tuple[Event, ...]:
    """Events with a sequence number above `after`, in order."""
    rows = connection.execute(select(EVENTS).where(EVENTS.c.sequence > after).order_by(EVENTS.c.sequence))
    return tuple(Event(row.sequence, row.at, row.kind, row.shard, row.detail) for row in rows)
