"""Notes of what is in training, for `s3t status` of any process: written now and then, by the scheduler.

In: the running stages of its process. Out: rows of the ledger. A note costs one small transaction, so it
is written by the clock, not by the step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import RunningStage

SECONDS_BETWEEN = 2.0


class Notes:
    """Of one scheduler, by one thread."""

    def __init__(self, ledger: Ledger, epoch: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._epoch = epoch
        self._clock = clock
        self._next = clock()
        self._empty = False

    def look(self, running: Sequence[RunningStage]) -> None:
        """Note these, if the last time is long enough ago; nothing, when there was nothing then either. Fenced."""
        if self._clock() < self._next or (self._empty and not running):
            return
        self._next = self._clock() + SECONDS_BETWEEN
        self._empty = not running
        self._ledger.note_running(self._epoch, running)
