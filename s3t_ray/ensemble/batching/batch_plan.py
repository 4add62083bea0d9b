"""What the next forward pass computes, decided from sizes alone.

In: the generations that run and those that wait, as frozen values, and the limits of the machine. Out: a `BatchStep`.
Pure: no torch, no clock, no lock, so a thousand random cases can be tested against a slow checker.

What the tests hold, one each:
1. A step has at most `step_tokens` tokens, and the running generations reserve at most `cache_tokens`.
2. A generation that decodes gets its token in every step: a long prompt beside it never stops it.
3. Generations are admitted in the order in which they came, and none that fits is passed over for ever.
4. The oldest prompt that is being read makes progress in every step.
5. When anything runs or waits, the step computes something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3t_ray.errors import ConfigError


@dataclass(frozen=True)
class BatchLimits:
    """What one machine may have in hand."""

    rows: int
    """Generations that run at once."""
    step_tokens: int
    """Tokens in one forward pass: the longest prompt chunk, and the longest that a deletion waits for."""
    cache_tokens: int
    """Tokens whose keys and values fit in memory, over all that run."""

    def __post_init__(self) -> None:
        if self.rows < 1 or self.step_tokens <= self.rows:
            raise ConfigError(
                f"a step of {self.step_tokens} tokens cannot serve {self.rows} rows and read prompts too",
                "give 1 row or more, and more tokens per step than rows",
            )


@dataclass(frozen=True)
class WaitingRow:
    """A generation that has not begun."""

    id: str
    pending: int
    """Tokens of the prompt."""
    reserve: int
    """Tokens that its cache may grow to."""


@dataclass(frozen=True)
class RunningRow:
    """A generation that has begun. `pending` is 1 while it decodes, more while it reads its prompt."""

    id: str
    pending: int
    reserve: int


@dataclass(frozen=True)
class BatchStep:
    """`admit` begin now, in order; `work` says how many tokens of which generation are fed."""

    admit: tuple[str, ...]
    work: tuple[tuple[str, int], ...]


def next_step(running: Sequence[RunningRow], waiting: Sequence[WaitingRow], limits: BatchLimits) -> BatchStep:
    """The next step. `running` and `waiting` are in the order in which they came.

    A waiting generation whose `reserve` exceeds `cache_tokens` never fits: refuse it where it is submitted.
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
            break  # nobody overtakes: a large request would wait for ever behind small ones
        count = min(candidate.pending, room)
        admit.append(candidate.id)
        reading.append((candidate.id, count))
        room, rows, cache = room - count, rows + 1, cache - candidate.reserve
    return BatchStep(tuple(admit), (*decoding, *reading))
