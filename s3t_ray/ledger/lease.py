"""The scheduler's lease: an epoch that only increases and fences every older scheduler.

It does not depend on time. Whoever takes the lease is the scheduler; the next write of the previous holder is refused,
however long it was suspended. Whether a silent holder should be replaced is decided elsewhere, from `beats` that stop
increasing.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from s3t_ray.ledger.tables import HEAD
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import EventKind, Fenced, SchedulerLease


def take(tx: Transaction, holder: str) -> int:
    """The new epoch, held by `holder`."""
    tx.head.epoch += 1
    tx.head.holder = holder
    tx.head.beats = 0
    tx.event(EventKind.LEASE_TAKEN, None, {"epoch": tx.head.epoch, "holder": holder})
    return tx.head.epoch


def require(tx: Transaction, epoch: int) -> None:
    """Fenced unless `epoch` is the newest."""
    if epoch != tx.head.epoch:
        raise Fenced(
            f"scheduler epoch {epoch} is fenced: epoch {tx.head.epoch} has the lease, held by {tx.head.holder!r}",
            "stop this scheduler; the newer one has taken over and goes on from the ledger",
        )


def beat(tx: Transaction, epoch: int) -> int:
    """Count one more heartbeat."""
    require(tx, epoch)
    tx.head.beats += 1
    return tx.head.beats


def read(connection: Connection) -> SchedulerLease:
    row = connection.execute(select(HEAD)).one()
    return SchedulerLease(row.epoch, row.holder, row.beats)
