"""Failed attempts at stages, counted until the stage is accepted, so that a restart remembers them."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from s3t_ray.ledger.tables import FAILURES
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import EventKind, FailureRow

MAX_ERROR_CHARACTERS = 2000

PURGE = "purge "
"""How the names of purges begin, among what failed."""


def retry_name(shard: int) -> str:
    """The name under which a failed purge of `shard` is counted."""
    return f"{PURGE}{shard}"


def record(tx: Transaction, stage_id: str, error: str) -> None:
    """One more failed attempt."""
    # Messages of other programs can hold what a database's text cannot: NUL, half a surrogate pair.
    shown = error[:MAX_ERROR_CHARACTERS].replace("\0", " ").encode(errors="replace").decode()
    known = tx.connection.execute(select(FAILURES.c.attempts).where(FAILURES.c.stage == stage_id)).scalar()
    if known is None:
        tx.connection.execute(insert(FAILURES).values(stage=stage_id, attempts=1, error=shown, at=tx.now))
    else:
        tx.connection.execute(
            update(FAILURES).where(FAILURES.c.stage == stage_id).values(attempts=known + 1, error=shown, at=tx.now)
        )
    tx.event(EventKind.STAGE_FAILED, None, {"stage": stage_id, "attempt": (known or 0) + 1})


def forget(tx: Transaction, stage_id: str) -> None:
    """What failed has gone through."""
    tx.connection.execute(delete(FAILURES).where(FAILURES.c.stage == stage_id))


def read(connection: Connection) -> tuple[FailureRow, ...]:
    """By stage id."""
    rows = connection.execute(select(FAILURES).order_by(FAILURES.c.stage))
    return tuple(FailureRow(row.stage, row.attempts, row.error, row.at) for row in rows)
