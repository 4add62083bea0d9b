"""What the page shows of a run and does for it, without a service: reads of the ledger, deletions, one answer.

In: an open run. Out: reports, in words that JSON can hold. Safe to call from any thread. Never shows an id of a record
or a subject that the caller did not give.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from s3t_ray.ledger.values import Event, EventKind
from s3t_ray.run import deletion
from s3t_ray.run.issued_certificates import certificate_of
from s3t_ray.run.reports import DeletionReceipt, Impact, Report, Status
from s3t_ray.run.run import Run
from s3t_ray.run.status import status
from s3t_ray.scheduler.scheduler import DEPTHS

if TYPE_CHECKING:
    from s3t_ray.ensemble.following_replica import Following
    from s3t_ray.ensemble.replica import Replica

T = TypeVar("T")

MOST_POINTS = 2_000
"""Of a history that is drawn; a longer one is thinned out."""
ANSWER_TOKENS = 96

_MARKS = {
    EventKind.DELETION_ACCEPTED: "accepted",
    EventKind.DELETION_PRUNED: "pruned",
    EventKind.DELETION_PURGED: "purged",
    EventKind.DELETION_RESTORED: "restored",
}


class DepthAt(Report):
    seconds: float
    """Since the first event."""
    mean_depth: float
    """Mean over the shards of the depth that each serves."""


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

    base: str
    live: str
    depths: tuple[int, ...]
    """Live depth of each shard."""
    seconds: float


class Desk(Protocol):
    """What the page needs."""

    def status(self) -> Status: ...

    def history(self) -> History: ...

    def preview(self, ids: Sequence[str], subjects: Sequence[str]) -> Impact: ...

    def accept(self, ids: Sequence[str], subjects: Sequence[str]) -> DeletionReceipt: ...

    def certificate(self, request_id: str) -> str: ...

    def public_key(self) -> bytes: ...

    @property
    def answers(self) -> bool:
        """Whether `ask` is offered."""
        ...

    def ask(self, prompt: str) -> Comparison: ...


class RunDesk:
    """The desk of one run. With `answers` it loads the models at the first question."""

    def __init__(self, run: Run, answers: bool) -> None:
        self._run = run
        self._answers = answers
        self._loading = threading.Lock()
        self._models: tuple[Replica, Following] | None = None

    @property
    def answers(self) -> bool:
        return self._answers

    def status(self) -> Status:
        return status(self._run)

    def history(self) -> History:
        return history_of(self._run.ledger.events(kinds=(DEPTHS, *_MARKS)))

    def preview(self, ids: Sequence[str], subjects: Sequence[str]) -> Impact:
        return deletion.preview(self._run, ids, subjects)

    def accept(self, ids: Sequence[str], subjects: Sequence[str]) -> DeletionReceipt:
        return deletion.accept(self._run, ids, subjects)

    def certificate(self, request_id: str) -> str:
        return certificate_of(self._run, request_id)

    def public_key(self) -> bytes:
        return self._run.keys.public_key_pem

    def ask(self, prompt: str) -> Comparison:
        """The likeliest answer of the base model beside that of what is live.

        The live answer is given only after a ledger read that shows every stage it rests on live.
        """
        from s3t_ray.ensemble.answers import Wish
        from s3t_ray.ensemble.batching.sampling_params import SamplingParams

        with self._loading:
            base, live = self._loaded()
            of_base = base.generate(prompt, ANSWER_TOKENS)
            answer = live.complete(Wish(prompt, SamplingParams(ANSWER_TOKENS)))
        return Comparison(base=of_base.text, live=answer.text, depths=answer.depths, seconds=answer.seconds)

    def close(self) -> None:
        """End what was started to answer."""
        with self._loading:
            if self._models is not None:
                self._models[1].close()

    def _loaded(self) -> tuple[Replica, Following]:
        """Two copies of the base; one of them stays as it is."""
        if self._models is None:
            from s3t_ray.config.load import dump_config
            from s3t_ray.ensemble.following_replica import Following
            from s3t_ray.ensemble.replica import Replica

            uri = self._run.location.storage_uri
            self._models = (Replica(dump_config(self._run.config), str(self._run.base), uri), Following(uri))
        return self._models


def history_of(events: Sequence[Event]) -> History:
    """Mean depth over time, and when deletions reached which state. Pure."""
    if not events:
        return History(began_at=None, depths=(), marks=())
    start = datetime.fromisoformat(events[0].at)
    of_shard: dict[int, int] = {}
    points: list[DepthAt] = []
    marks: dict[tuple[object, str], MarkAt] = {}  # a deletion is accepted in each shard that it hits
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
    """At most MOST_POINTS of them, first and last among these."""
    if len(items) <= MOST_POINTS:
        return tuple(items)
    step = (len(items) - 1) / (MOST_POINTS - 1)
    return tuple(items[round(number * step)] for number in range(MOST_POINTS))
