"""What generations said and nobody has taken yet. Released only if the stages behind it are live when it is taken.

In: events of many generations, in order. Out: batches of them. Whoever takes asks once for each batch which stages are
live, after every event of the batch was complete: that is the promise of the service, at the price of one look per
batch, however many streams there are. No torch.
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
    """`released` may go out. The generations in `withheld` had ended, on stages that are not live: run them again."""

    released: tuple[Said, ...]
    withheld: tuple[str, ...]


class Outbox:
    """Filled by one thread, emptied by one other."""

    def __init__(self) -> None:
        self._said: list[Said] = []
        self._looked_for = 0  # how many of the first in `_said` were there when the look at what is live began
        self._more = threading.Condition()
        self._stages: dict[str, frozenset[str]] = {}  # that each generation rests on now

    def put(self, said: list[Said]) -> None:
        if said:
            with self._more:
                self._said.extend(said)
                self._more.notify_all()

    def take(self, live: Callable[[], Set[str]], timeout: float | None = None, most: int | None = None) -> Taken:
        """What was said by now, `most` events of it, waiting for it up to `timeout` seconds.

        `live` is called once, after all of it was complete. When it raises, everything stays to be taken.
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
        """Throw away what waits to be taken; the generations that said it."""
        with self._more:
            dropped, self._said = self._said, []
        generations = tuple(dict.fromkeys(said.generation for said in dropped))
        for generation in generations:
            self._stages.pop(generation, None)
        return generations

    def forget(self, generation: str) -> None:
        """Nobody listens to this one any more."""
        with self._more:
            # What comes later must not move up into a look that began before it was said.
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
