"""External servers that hold the run's adapters, and the position in the history that each has confirmed.

In: a follower's name. Out: the position that all of them have confirmed: no deletion after it is pruned. A follower
that died without unloading delays deletions until its server is reported as gone (`end`).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update

from s3t_ray.ledger.database import Database
from s3t_ray.ledger.tables import FOLLOWERS, HEAD


@dataclass(frozen=True, slots=True)
class FollowerRow:
    """The position of one follower."""

    name: str
    position: int  # it has applied the history up to this number
    at: str  # of the last confirmation


class Followers:
    """The followers in one ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> tuple[FollowerRow, ...]:
        """By name."""
        with self._database.read() as connection:
            rows = connection.execute(select(FOLLOWERS).order_by(FOLLOWERS.c.name)).all()
        return tuple(FollowerRow(row.name, row.position, row.at) for row in rows)

    def slowest(self) -> int | None:
        """The position that all have confirmed; None: there are no followers."""
        with self._database.read() as connection:
            return connection.scalar(select(func.min(FOLLOWERS.c.position)))

    def head(self) -> int:
        """Number of the newest line of the history."""
        with self._database.read() as connection:
            return int(connection.execute(select(HEAD.c.sequence)).scalar_one())

    def begin(self, name: str) -> None:
        """Make deletions wait for `name`, which has confirmed nothing yet. A known follower keeps its position."""
        with self._database.write() as tx:
            known = tx.connection.execute(select(FOLLOWERS.c.name).where(FOLLOWERS.c.name == name)).scalar()
            if known is None:
                tx.connection.execute(insert(FOLLOWERS).values(name=name, position=0, at=tx.now))

    def confirm(self, name: str, position: int) -> None:
        """Record that `name` serves the live set of `position` or later."""
        with self._database.write() as tx:
            tx.connection.execute(
                update(FOLLOWERS)
                .where(FOLLOWERS.c.name == name, FOLLOWERS.c.position < position)
                .values(position=position, at=tx.now)
            )

    def end(self, name: str) -> bool:
        """Record that `name` no longer has adapters. False: unknown follower."""
        with self._database.write() as tx:
            return tx.connection.execute(delete(FOLLOWERS).where(FOLLOWERS.c.name == name)).rowcount > 0
