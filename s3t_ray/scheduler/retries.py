"""Back-off for what keeps failing, and when to give up. Pure but for the clock it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
OWN_FAULTS = 3
"""Failures of a stage itself (bad input, diverged loss) after which it is given up until a restart."""
LOSSES = 8
"""Losses of the worker group in a row: the stage may be what kills it (out of memory)."""


@dataclass
class _Record:
    faults: int = 0
    losses: int = 0
    not_before: float = 0.0


class Retries:
    """Failures by name. A success forgets; so does a restart, which is a person's way to try again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._records: dict[str, _Record] = {}

    def failed(self, name: str, lost: bool) -> None:
        """Count a failure: `lost` when what ran it died, else its own fault. Each doubles the wait."""
        record = self._records.setdefault(name, _Record())
        if lost:
            record.losses += 1
        else:
            record.faults += 1
        attempts = record.losses + record.faults
        wait = min(FIRST_WAIT_SECONDS * 2 ** (attempts - 1), LONGEST_WAIT_SECONDS)
        record.not_before = self._clock() + wait

    def succeeded(self, name: str) -> None:
        """Forget the failures of `name`."""
        self._records.pop(name, None)

    def due(self, name: str) -> bool:
        """Whether `name` may be tried now."""
        record = self._records.get(name)
        return record is None or (name not in self.given_up and record.not_before <= self._clock())

    def blocked(self) -> frozenset[str]:
        """Names that must wait, or are given up."""
        return frozenset(name for name in self._records if not self.due(name))

    @property
    def given_up(self) -> frozenset[str]:
        """Names that failed too often."""
        return frozenset(
            name for name, record in self._records.items() if record.faults >= OWN_FAULTS or record.losses >= LOSSES
        )

    def attempts(self, name: str) -> int:
        """Failures counted so far."""
        record = self._records.get(name)
        return 0 if record is None else record.faults + record.losses
