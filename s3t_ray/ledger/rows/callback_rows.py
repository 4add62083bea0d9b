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
    """Where one receiver stands."""

    name: str
    position: int  # of the last event that it has taken
    attempts: int  # at the next one, all failed
    error: str | None  # of the last attempt
    at: str  # of the last attempt, or of the last success


class CallbackPositions:
    """The receivers that one ledger knows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> tuple[CallbackRow, ...]:
        """By name."""
        with self._database.read() as connection:
            rows = connection.execute(select(CALLBACKS).order_by(CALLBACKS.c.name)).all()
        return tuple(CallbackRow(row.name, row.position, row.attempts, row.error, row.at) for row in rows)

    def begin(self, name: str) -> CallbackRow:
        """Where `name` stands; a new one stands at the head of the history."""
        with self._database.write() as tx:
            row = tx.connection.execute(select(CALLBACKS).where(CALLBACKS.c.name == name)).one_or_none()
            if row is not None:
                return CallbackRow(row.name, row.position, row.attempts, row.error, row.at)
            made = CallbackRow(name, tx.head.sequence, 0, None, tx.now)
            values = {"name": name, "position": made.position, "attempts": 0, "error": None, "at": tx.now}
            tx.connection.execute(insert(CALLBACKS).values(values))
            return made

    def taken(self, name: str, position: int) -> None:
        """`name` has taken the event of this number. It never goes back: another sender may be further."""
        with self._database.write() as tx:
            tx.connection.execute(
                update(CALLBACKS)
                .where(CALLBACKS.c.name == name, CALLBACKS.c.position < position)
                .values(position=position, attempts=0, error=None, at=tx.now)
            )

    def failed(self, name: str, position: int, error: str) -> None:
        """Another attempt at the event after `position` failed; `error` must hold nothing that the receiver said."""
        with self._database.write() as tx:
            tx.connection.execute(
                update(CALLBACKS)
                .where(CALLBACKS.c.name == name, CALLBACKS.c.position == position)
                .values(attempts=CALLBACKS.c.attempts + 1, error=error, at=tx.now)
            )
