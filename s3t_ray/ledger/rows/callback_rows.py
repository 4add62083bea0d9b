"""Each receiver's position in the run's history, for callbacks.

In: a receiver's name. Out: the number of the last event that it accepted. A new receiver starts at the end of the
history; from then on no event is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from s3t_ray.ledger.database import Database
from s3t_ray.ledger.tables import CALLBACKS


@dataclass(frozen=True, slots=True)
class CallbackRow:
    """The position of one receiver."""

    name: str
    position: int  # of the last event that it accepted
    attempts: int  # failed attempts at the next event
    error: str | None  # of the last attempt
    at: str  # of the last attempt, or of the last success


class CallbackPositions:
    """The receivers in one ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> tuple[CallbackRow, ...]:
        """By name."""
        with self._database.read() as connection:
            rows = connection.execute(select(CALLBACKS).order_by(CALLBACKS.c.name)).all()
        return tuple(CallbackRow(row.name, row.position, row.attempts, row.error, row.at) for row in rows)

    def begin(self, name: str) -> CallbackRow:
        """The position of `name`; a new receiver starts at the head of the history."""
        with self._database.write() as tx:
            row = tx.connection.execute(select(CALLBACKS).where(CALLBACKS.c.name == name)).one_or_none()
            if row is not None:
                return CallbackRow(row.name, row.position, row.attempts, row.error, row.at)
            made = CallbackRow(name, tx.head.sequence, 0, None, tx.now)
            values = {"name": name, "position": made.position, "attempts": 0, "error": None, "at": tx.now}
            tx.connection.execute(insert(CALLBACKS).values(values))
            return made

    def taken(self, name: str, position: int) -> None:
        """Record that `name` accepted this event. Positions never go back, because another sender may be ahead."""
        with self._database.write() as tx:
            tx.connection.execute(
                update(CALLBACKS)
                .where(CALLBACKS.c.name == name, CALLBACKS.c.position < position)
                .values(position=position, attempts=0, error=None, at=tx.now)
            )

    def failed(self, name: str, position: int, error: str) -> None:
        """Record a failed attempt at the event after `position`; `error` must not quote the receiver."""
        with self._database.write() as tx:
            tx.connection.execute(
                update(CALLBACKS)
                .where(CALLBACKS.c.name == name, CALLBACKS.c.position == position)
                .values(attempts=CALLBACKS.c.attempts + 1, error=error, at=tx.now)
            )
