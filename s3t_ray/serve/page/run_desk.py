"""The page's operations on a run, without a service: ledger reads, deletions, and prompts.

In: an open run. Out: JSON-serializable reports. Thread-safe. It never shows a record id or subject that the caller did
not give.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from s3t_ray.ledger.rows.request_rows import RequestDetails
from s3t_ray.ledger.values import Event, EventKind
from s3t_ray.run import deletion
from s3t_ray.run.deletion_list import DeletionFilter, list_deletions
from s3t_ray.run.log.issued_certificates import certificate_of
from s3t_ray.run.reports import DeletionReceipt, Impact, Report, Status
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from s3t_ray.scheduler.scheduler import DEPTHS

T = TypeVar("T")

MOST_POINTS = 2_000
"""Maximum points of a drawn history; longer ones are thinned out."""

_MARKS = {
    EventKind.DELETION_ACCEPTED: "accepted",
    EventKind.DELETION_PRUNED: "pruned",
    EventKind.DELETION_PURGED: "purged",
    EventKind.DELETION_RESTORED: "restored",
}


class DepthAt(Report):
    seconds: float
    """Seconds since the first event."""
    mean_depth: float
    """Depth served, averaged over shards."""


class MarkAt(Report):
    seconds: float
    kind: str
    """State that a deletion reached."""


class History(Report):
    began_at: str | None
    depths: tuple[DepthAt, ...]
    marks: tuple[MarkAt, ...]


class Comparison(Report):
    """One prompt, answered by the base model and by the live ensemble."""

    base: str | None
    """None: the base has no trained head for this task."""
    live: str
    depths: tuple[int, ...]
    """Live depth of each shard."""
    seconds: float


class Asker(Protocol):
    """Sends a prompt to the base model and to the live models."""

    def ask(self, prompt: str) -> Comparison:
        """Answer the prompt; blocks. Overloaded: too many prompts. DataError: the prompt is invalid."""
        ...


class Desk(Protocol):
    """The operations that the page needs."""

    def status(self) -> Status: ...

    def history(self) -> History: ...

    def preview(self, ids: Sequence[str], subjects: Sequence[str]) -> Impact: ...

    def accept(self, ids: Sequence[str], subjects: Sequence[str], details: RequestDetails) -> DeletionReceipt: ...

    def references(self) -> dict[str, list[str]]:
        """References of each deletion, by request id."""
        ...

    def certificate(self, request_id: str) -> str: ...

    def public_key(self) -> bytes: ...

    @property
    def asker(self) -> Asker | None:
        """Answers prompts; None: the page has no prompt box."""
        ...


class RunDesk:
    """The desk of one run."""

    def __init__(self, run: Run, asker: Asker | None = None) -> None:
        self._run = run
        self.asker = asker

    def status(self) -> Status:
        return status(self._run)

    def history(self) -> History:
        return history_of(self._run.ledger.events(kinds=(DEPTHS, *_MARKS)))

    def preview(self, ids: Sequence[str], subjects: Sequence[str]) -> Impact:
        return deletion.preview(self._run, ids, subjects)

    def accept(self, ids: Sequence[str], subjects: Sequence[str], details: RequestDetails) -> DeletionReceipt:
        return deletion.accept(self._run, ids, subjects, details=details)

    def references(self) -> dict[str, list[str]]:
        listed = list_deletions(self._run, DeletionFilter()).deletions
        return {each.request_id: [told.reference for told in each.requests if told.reference] for each in listed}

    def certificate(self, request_id: str) -> str:
        return certificate_of(self._run, request_id)

    def public_key(self) -> bytes:
        return self._run.keys.public_key_pem


def history_of(events: Sequence[Event]) -> History:
    """Mean depth over time, and when deletions reached each state. Pure."""
    if not events:
        return History(began_at=None, depths=(), marks=())
    start = datetime.fromisoformat(events[0].at)
    of_shard: dict[int, int] = {}
    points: list[DepthAt] = []
    marks: dict[tuple[object, str], MarkAt] = {}  # a deletion has an event in each affected shard
    for event in events:
        seconds = (datetime.fromisoformat(event.at) - start).total_seconds()
        if event.kind == DEPTHS and event.shard is not None:
            of_shard[event.shard] = max(json.loads(event.detail)["depths"], default=0)
            points.append(DepthAt(seconds=seconds, mean_depth=sum(of_shard.values()) / len(of_shard)))
        elif event.kind in _MARKS:
            request = json.loads(event.detail).get("request", event.seq)
            marks.setdefault((request, event.kind), MarkAt(seconds=seconds, kind=_MARKS[EventKind(event.kind)]))
    return History(began_at=events[0].at, depths=_thinned(points), marks=_thinned(list(marks.values())))


def _thinned(items: Sequence[T]) -> tuple[T, ...]:
    """At most MOST_POINTS items, including the first and last."""
    if len(items) <= MOST_POINTS:
        return tuple(items)
    step = (len(items) - 1) / (MOST_POINTS - 1)
    return tuple(items[round(number * step)] for number in range(MOST_POINTS))
