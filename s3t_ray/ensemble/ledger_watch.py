"""Which stages are live according to the ledger itself: the basis of a replica's guarantee.

In: the ledger. Out: the ids of the live stages, from a read that began after the question. A prune takes effect before
any caller hears of it. Many threads ask at once and share their reads, so a replica with many streams costs the ledger
one short read at a time. No torch, no Ray.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import EventKind, StageState

CHANGES = frozenset({EventKind.STAGE_ACCEPTED, EventKind.STAGE_STALE})
"""Events that change which stages are live; the transaction that changes it writes one."""


@dataclass(frozen=True)
class LiveStages:
    """What was read: `position` is the number of the ledger's last event then."""

    position: int
    live: frozenset[str]


class LedgerWatch:
    """Shared by all threads of a replica. `prune(position, live)` is called by one thread at a time."""

    def __init__(self, ledger: Ledger, prune: Callable[[int, frozenset[str]], object]) -> None:
        self._ledger = ledger
        self._prune = prune
        self._known = LiveStages(0, frozenset())
        self._changed = threading.Condition()
        self._begun = 0
        self._ended = 0  # number of the newest read that ended well
        self._reading = False

    def live(self) -> LiveStages:
        """The ledger's live stages, from a read that begins after this call. Raises LedgerError.

        A read that is on its way already may be too old for who comes now: it waits for the next one,
        which serves all who wait.
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
            # Read after the events: at least as new as their last. What is newer has an event to come.
            live = frozenset(stage.id for stage in self._ledger.stages(state=StageState.LIVE))
            self._prune(position, live)
        return LiveStages(position, live)
