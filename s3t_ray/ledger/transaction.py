"""One write transaction: its sequence numbers, its time, and the events that it adds to the history.

`Database.write` creates it with the head row locked and stores the head when the block ends, so its numbers follow the
order of commits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, insert, select, update

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.keys import LedgerKeys
from s3t_ray.ledger.tables import EVENTS, HEAD
from s3t_ray.ledger.values import Event


def utc_now() -> datetime:
    """The default clock."""
    return datetime.now(UTC)


@dataclass
class Head:
    """The single row that all writers share."""

    sequence: int
    epoch: int
    holder: str
    beats: int
    at: str


def is_time(text: str) -> bool:
    """Whether a text is a time in the ledger's format: UTC, ISO 8601 with microseconds."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="microseconds") == text
    except ValueError:
        return False


def _time_of(head: Head) -> str:
    """The latest time used; empty: none yet. No seal covers it, although signed entries contain it."""
    if head.at and not is_time(head.at):
        raise LedgerError(
            f"the ledger's clock says {head.at[:40]!r}, which is not a time: its row was changed outside the run; "
            "nothing was written",
            "run `s3t audit` to investigate, and restore the ledger from a copy",
        )
    return head.at


class Transaction:
    """Passed to functions that write; valid until `Database.write` ends."""

    def __init__(self, connection: Connection, head: Head, clock: str, ask_keys: Callable[[], LedgerKeys]) -> None:
        self.connection = connection
        self.head = head
        # A clock may have been set back, but signed entries must never put an effect before its cause.
        self.now = max(clock, _time_of(head))
        self._ask_keys = ask_keys
        self._stored = replace(head)

    @property
    def keys(self) -> LedgerKeys:
        """The run's keys, asked for now. LedgerError: they cannot be had, or the ledger does not know from whom."""
        return self._ask_keys()

    def next_sequence(self) -> int:
        self.head.sequence += 1
        return self.head.sequence

    def event(self, kind: str, shard: int | None, detail: Mapping[str, object]) -> Event:
        """Add an event to the history."""
        return self.events(kind, [(shard, detail)])[0]

    def events(self, kind: str, lines: Iterable[tuple[int | None, Mapping[str, object]]]) -> list[Event]:
        """Add events of one kind to the history: (shard, detail)."""
        added = [Event(self.next_sequence(), self.now, str(kind), shard, _json(detail)) for shard, detail in lines]
        if added:
            self.connection.execute(
                _ADD,
                [
                    {"sequence": line.seq, "at": line.at, "kind": line.kind, "shard": line.shard, "detail": line.detail}
                    for line in added
                ],
            )
        return added

    def store_head(self) -> None:
        """Store the head; the last statement of the transaction."""
        if self.head != self._stored:
            self.head.at = self.now
            self.connection.execute(_STORE, vars(self.head))


def read_events(connection: Connection, after: int, kinds: Collection[str] | None) -> tuple[Event, ...]:
    """Events with a sequence number above `after`, of these kinds (None: all), in order."""
    query = select(EVENTS).where(EVENTS.c.sequence > after).order_by(EVENTS.c.sequence)
    if kinds is not None:
        query = query.where(EVENTS.c.kind.in_(sorted(kinds)))
    rows = connection.execute(query)
    return tuple(Event(row.sequence, row.at, row.kind, row.shard, row.detail) for row in rows)


# Built once: building a statement takes longer than running it.
_ADD = insert(EVENTS)
_STORE = update(HEAD).values({name: bindparam(name) for name in ("sequence", "epoch", "holder", "beats", "at")})


def _json(detail: Mapping[str, object]) -> str:
    return json.dumps(detail, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
