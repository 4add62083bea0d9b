"""Failed attempts, counted until the failed task succeeds, so that they are still shown after a restart.

A stage, the purge of a shard, the loading of a live set by the serving replicas, or the publishing of the log can fail.
Each has a stable text, the key of its row: old ledgers hold the same texts.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.tables import FAILURES
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import EventKind

MAX_ERROR_CHARACTERS = 2000

_PURGE = "purge "
_SERVING = "serving"
_LOG = "log"


@dataclass(frozen=True, slots=True)
class FailedStage:
    """A stage did not train."""

    stage_id: str

    def __str__(self) -> str:
        return self.stage_id


@dataclass(frozen=True, slots=True)
class FailedPurge:
    """The purge of a shard failed; -1 is the shard of the held-out records."""

    shard: int

    def __str__(self) -> str:
        return f"{_PURGE}{self.shard}"


@dataclass(frozen=True, slots=True)
class FailedServing:
    """Serving replicas could not load a stage of the live set."""

    def __str__(self) -> str:
        return _SERVING


@dataclass(frozen=True, slots=True)
class FailedLog:
    """The run's log could not be published."""

    def __str__(self) -> str:
        return _LOG


FailureSubject = FailedStage | FailedPurge | FailedServing | FailedLog
"""The subject of a failure. `str` gives its stable text; `parse_subject` reads it."""


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A subject that failed since it last succeeded."""

    subject: FailureSubject
    attempts: int
    error: str  # of the last attempt
    at: str


def parse_subject(text: str) -> FailureSubject:
    """The subject with this text. LedgerError: this version does not know it."""
    if text == _SERVING:
        return FailedServing()
    if text == _LOG:
        return FailedLog()
    if text.startswith(_PURGE):
        shard = text.removeprefix(_PURGE)
        if shard.removeprefix("-").isdecimal():
            return FailedPurge(int(shard))
    elif " " not in text and text:
        return FailedStage(text)
    raise LedgerError(
        f"the ledger counts failures of {text!r}, which is not a stage, a purge or serving",
        "open the run with the version of s3t_ray that wrote it, or a newer one",
    )


def record(tx: Transaction, subject: FailureSubject, error: str) -> None:
    """Record another failed attempt."""
    # Messages of other programs can contain characters that a database rejects: NUL, lone surrogates.
    shown = error[:MAX_ERROR_CHARACTERS].replace("\0", " ").encode(errors="replace").decode()
    key = str(subject)
    known = tx.connection.execute(select(FAILURES.c.attempts).where(FAILURES.c.stage == key)).scalar()
    if known is None:
        tx.connection.execute(insert(FAILURES).values(stage=key, attempts=1, error=shown, at=tx.now))
    else:
        tx.connection.execute(
            update(FAILURES).where(FAILURES.c.stage == key).values(attempts=known + 1, error=shown, at=tx.now)
        )
    tx.event(EventKind.STAGE_FAILED, None, {"stage": key, "attempt": (known or 0) + 1})


def forget(tx: Transaction, subject: FailureSubject) -> None:
    """Clear the failures of a subject that succeeded."""
    tx.connection.execute(delete(FAILURES).where(FAILURES.c.stage == str(subject)))


def read(connection: Connection) -> tuple[FailureRow, ...]:
    """All failures, ordered by their texts."""
    rows = connection.execute(select(FAILURES).order_by(FAILURES.c.stage))
    return tuple(FailureRow(parse_subject(row.stage), row.attempts, row.error, row.at) for row in rows)
