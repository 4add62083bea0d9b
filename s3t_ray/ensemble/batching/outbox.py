"""A queue of generation events. Releases an event only if the stages behind it are live when it is taken.

In: events of many generations, in order. Out: batches of events. The consumer reads the set of live stages once per
batch, after every event in the batch was complete. This upholds the service's guarantee at the cost of one ledger read
per batch, regardless of the number of streams. No torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Set
from dataclasses import dataclass

from s3t_ray.ensemble.answers import Ended, Failed, GenerationEvent, Started


@dataclass(frozen=True)
class Said:
    """One event of one generation."""

    generation: str
    event: GenerationEvent


@dataclass(frozen=True)
class Taken:
    """One batch. Events in `released` may go out. The generations in `withheld` ended on pruned stages: rerun them."""

    released: tuple[Said, ...]
    withheld: tuple[str, ...]


class Outbox:
    """A queue with one producer thread and one consumer thread."""

    def __init__(self) -> None:
        self._said: list[Said] = []
        self._looked_for = 0  # length of the prefix of `_said` that existed when the read of live stages began
        self._more = threading.Condition()
        self._stages: dict[str, frozenset[str]] = {}  # the stages that each generation currently uses

    def put(self, said: list[Said]) -> None:
        """Queue events and wake the threads that wait in `take`."""
        if said:
            with self._more:
                self._said.extend(said)
                self._more.notify_all()

    def take(self, live: Callable[[], Set[str]], timeout: float | None = None, most: int | None = None) -> Taken:
        """Take the queued events, at most `most`. Waits up to `timeout` seconds for the first one.

        Calls `live` once, after all taken events were complete. If it raises, all events stay in the queue.
        """
        with self._more:
            self._more.wait_for(lambda: self._said, timeout)
            self._looked_for = len(self._said) if most is None else min(most, len(self._said))
            if not self._looked_for:
                return Taken((), ())
        allowed = live()
        with self._more:
            batch, self._said = self._said[: self._looked_for], self._said[self._looked_for :]
        return self._released(batch, allowed)

    def drop(self) -> tuple[str, ...]:
        """Discard all queued events. Returns the generations that they belonged to."""
        with self._more:
            dropped, self._said = self._said, []
        generations = tuple(dict.fromkeys(said.generation for said in dropped))
        for generation in generations:
            self._stages.pop(generation, None)
        return generations

    def forget(self, generation: str) -> None:
        """Discard the events of a generation that has no listener any more."""
        with self._more:
            # Later events must not move into a batch whose live stages were read before the events were complete.
            self._looked_for -= sum(said.generation == generation for said in self._said[: self._looked_for])
            self._said = [said for said in self._said if said.generation != generation]
        self._stages.pop(generation, None)

    def _released(self, batch: list[Said], allowed: Set[str]) -> Taken:
        released, withheld = [], []
        for said in batch:
            if isinstance(said.event, Started):
                self._stages[said.generation] = frozenset(said.event.stages)
            stages = self._stages.get(said.generation, frozenset())
            good = stages <= allowed or isinstance(said.event, Failed)
            if good:
                released.append(said)
            elif isinstance(said.event, Ended):
                withheld.append(said.generation)
            if isinstance(said.event, Ended | Failed):
                self._stages.pop(said.generation, None)
        return Taken(tuple(released), tuple(withheld))
