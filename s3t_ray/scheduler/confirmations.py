"""Serving replicas confirm every live set. One that does not is ended, since it may still answer from what was pruned.

In: replicas behind an interface (`ServingReplica`), and live sets. Out: which replicas serve less than they should.
No Ray: `runtime/` has the real replicas.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from s3t_ray.errors import StoreError, TrainError
from s3t_ray.scheduler.interfaces import ServingReplica

CONFIRM_SECONDS = 30.0
"""A replica that has not confirmed a live set after this long is ended."""


class Confirmations:
    """The replicas that follow one run (see `interfaces.Replicas`). `attach` may be called by any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._replicas: dict[str, ServingReplica] = {}
        self._version = 0

    def begin(self, epoch: int) -> None:
        """Versions of this epoch are above all of the earlier ones, which a surviving replica may hold."""
        self._version = epoch << 32

    def attach(self, name: str, replica: ServingReplica) -> None:
        """Have `replica` follow the live set from now on."""
        self._replicas[name] = replica

    def set_live(self, chains: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        """See `interfaces.Replicas`. Waits for all of them together, `CONFIRM_SECONDS` at most."""
        self._version += 1
        attached = self._replicas.copy()  # another thread may attach one meanwhile
        asked = {name: replica.ask(self._version, chains) for name, replica in attached.items()}
        until = self._clock() + CONFIRM_SECONDS
        behind = []
        for name, answer in asked.items():
            try:
                confirmed = answer.version(max(0.0, until - self._clock()))
            except (StoreError, TrainError):
                # A new stage is damaged or does not fit. What was pruned is out of its service all the same
                # (`Ensemble.set_live` shrinks first), and it goes on with what it has.
                behind.append(name)
                continue
            if confirmed != self._version:
                self._end(name, attached[name])
        return tuple(behind)

    def _end(self, name: str, replica: ServingReplica) -> None:
        replica.end()
        if self._replicas.get(name) is replica:  # not one that has taken its name since
            del self._replicas[name]
