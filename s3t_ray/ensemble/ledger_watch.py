"""Reads the live stages from the ledger: the basis of a replica's guarantee.

In: the ledger. Out: the ids of the live stages, from a read that started after the call. A prune takes effect before
any caller sees it. Concurrent callers share reads, so a replica with many streams makes only one short ledger read at a
time. No torch, no Ray.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import EventKind, StageState

CHANGES = frozenset({EventKind.STAGE_ACCEPTED, EventKind.STAGE_STALE})
"""Events that change the set of live stages. The transaction that changes the set also writes one of them."""


@dataclass(frozen=True)
class LiveStages:
    """The result of a read. `position` is the number of the ledger's last event at that time."""

    position: int
    live: frozenset[str]


class LedgerWatch:
    """Shared by all threads of a replica. Only one thread at a time calls `prune(position, live)`."""

    def __init__(self, ledger: Ledger, prune: Callable[[int, frozenset[str]], object]) -> None:
        self._ledger = ledger
        self._prune = prune
        self._known = LiveStages(0, frozenset())
        self._changed = threading.Condition()
        self._begun = 0
        self._ended = 0  # number of the newest successful read
        self._reading = False

    def live(self) -> LiveStages:
        """The ledger's live stages, from a read that starts after this call. Raises LedgerError if it fails.

        A read that is already running may be too old for this caller, who waits for the next one. That read serves all
        waiting callers.
        """
        with self._changed:
            wanted = self._begun + 1
            self._changed.wait_for(lambda: self._ended >= wanted or not self._reading)
            if self._ended >= wanted:
                return self._known
            self._reading = True
            self._begun += 1
            number = self._begun
        known = None
        try:
            known = self._read()
        finally:
            with self._changed:
                self._reading = False
                if known is not None:
                    self._known, self._ended = known, number
                self._changed.notify_all()
        return known

    def _read(self) -> LiveStages:
        events = self._ledger.events(after=self._known.position)
        if not events:
            return self._known
        position, live = events[-1].seq, self._known.live
        if any(event.kind in CHANGES for event in events):
            # Read after the events, so it is at least as new as the last of them. Newer changes have later events.
            live = frozenset(stage.id for stage in self._ledger.stages(state=StageState.LIVE))
            self._prune(position, live)
        return LiveStages(position, live)
