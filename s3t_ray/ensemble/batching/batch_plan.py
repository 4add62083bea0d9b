"""Decides what the next forward pass computes, from sizes only.

In: the running and the queued generations as frozen values, and the machine's limits. Out: a `BatchStep`. Pure: no
torch, clock or lock, so tests can compare thousands of random cases with a slow checker.

Invariants, each with a test:
1. A step has at most `step_tokens` tokens, and the running generations reserve at most `cache_tokens`.
2. A decoding generation gets its token in every step; a long prompt beside it never delays it.
3. Generations are admitted in order of arrival, and none that fits waits forever.
4. The oldest prompt that is being read makes progress in every step.
5. If anything is running or queued, the step computes something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3t_ray.errors import ConfigError


@dataclass(frozen=True)
class BatchLimits:
    """The limits of one machine. Raises ConfigError if `step_tokens` leaves no room to read prompts."""

    rows: int
    """Maximum number of generations that run at once."""
    step_tokens: int
    """Maximum tokens per forward pass. It limits prompt chunks, and the time that a deletion waits for a pass."""
    cache_tokens: int
    """Maximum number of cached tokens over all running generations."""

    def __post_init__(self) -> None:
        if self.rows < 1 or self.step_tokens <= self.rows:
            raise ConfigError(
                f"a step of {self.step_tokens} tokens cannot serve {self.rows} rows and also read prompts",
                "use at least 1 row, and more tokens per step than rows",
            )


@dataclass(frozen=True)
class WaitingRow:
    """A generation in the queue."""

    id: str
    pending: int
    """Tokens in the prompt."""
    reserve: int
    """The number of tokens that its cache may grow to."""


@dataclass(frozen=True)
class RunningRow:
    """A running generation. `pending` is 1 while it decodes, and more while it reads its prompt."""

    id: str
    pending: int
    reserve: int


@dataclass(frozen=True)
class BatchStep:
    """One step: the generations to start, in order, and (generation, number of tokens to feed) pairs."""

    admit: tuple[str, ...]
    work: tuple[tuple[str, int], ...]


def next_step(running: Sequence[RunningRow], waiting: Sequence[WaitingRow], limits: BatchLimits) -> BatchStep:
    """The next step. `running` and `waiting` are in order of arrival.

    A generation whose `reserve` exceeds `cache_tokens` never fits; refuse it on submission.
    """
    decoding = [(row.id, 1) for row in running if row.pending == 1]
    room = limits.step_tokens - len(decoding)
    reading = []
    for row in running:
        if row.pending > 1 and room > 0:
            count = min(row.pending, room)
            reading.append((row.id, count))
            room -= count
    admit = []
    rows = len(running)
    cache = limits.cache_tokens - sum(row.reserve for row in running)
    for candidate in waiting:
        if room < 1 or rows >= limits.rows or candidate.reserve > cache:
            break  # keep the order: otherwise a large request could wait forever behind small ones
        count = min(candidate.pending, room)
        admit.append(candidate.id)
        reading.append((candidate.id, count))
        room, rows, cache = room - count, rows + 1, cache - candidate.reserve
    return BatchStep(tuple(admit), (*decoding, *reading))
