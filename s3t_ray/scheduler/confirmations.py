"""Serving replicas confirm every live set. One that does not is killed: it may still answer from pruned stages.

In: replicas behind an interface (`ServingReplica`), and live sets. Out: the replicas that serve less than the live set.
No Ray: the real replicas are in `runtime/`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from s3t_ray.errors import StoreError, TrainError
from s3t_ray.scheduler.interfaces import ServingReplica

CONFIRM_SECONDS = 30.0
"""Seconds after which a replica that has not confirmed a live set is killed."""


class Confirmations:
    """The replicas that follow one run (see `interfaces.Replicas`). Any thread may call `attach`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._replicas: dict[str, ServingReplica] = {}
        self._version = 0

    def begin(self, epoch: int) -> None:
        """Start this epoch. Its versions are higher than all earlier ones, which a surviving replica may hold."""
        self._version = epoch << 32

    def attach(self, name: str, replica: ServingReplica) -> None:
        """Make `replica` follow the live set from now on."""
        self._replicas[name] = replica

    def set_live(self, chains: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        """See `interfaces.Replicas`. Waits at most `CONFIRM_SECONDS` in total."""
        self._version += 1
        attached = self._replicas.copy()  # another thread may attach one in the meantime
        asked = {name: replica.ask(self._version, chains) for name, replica in attached.items()}
        until = self._clock() + CONFIRM_SECONDS
        behind = []
        for name, answer in asked.items():
            try:
                confirmed = answer.version(max(0.0, until - self._clock()))
            except (StoreError, TrainError):
                # A new stage is damaged or does not fit. The replica has already dropped the pruned stages
                # (`Ensemble.set_live` shrinks first), and continues with the rest.
                behind.append(name)
                continue
            if confirmed != self._version:
                self._end(name, attached[name])
        return tuple(behind)

    def _end(self, name: str, replica: ServingReplica) -> None:
        replica.end()
        if self._replicas.get(name) is replica:  # not a newer replica of the same name
            del self._replicas[name]
