"""Records the stages in training in the ledger from time to time, for `s3t status` in any process.

In: the running stages of the scheduler's process. Out: rows of the ledger. Each update is a small transaction, so
updates happen at time intervals, not at every step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import RunningStage

SECONDS_BETWEEN = 2.0


class Notes:
    """Belongs to one scheduler; not thread-safe."""

    def __init__(self, ledger: Ledger, epoch: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._epoch = epoch
        self._clock = clock
        self._next = clock()
        self._empty = False

    def look(self, running: Sequence[RunningStage]) -> None:
        """Record these stages if the last update is old enough; skips consecutive empty updates. Raises Fenced."""
        if self._clock() < self._next or (self._empty and not running):
            return
        self._next = self._clock() + SECONDS_BETWEEN
        self._empty = not running
        self._ledger.note_running(self._epoch, running)
