"""Back-off for repeated failures, and when to give up. Pure, except for the given clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from s3t_ray.ledger.rows.failure_rows import FailureSubject

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
OWN_FAULTS = 3
"""Failures of a stage itself (bad input, diverged loss) after which it is given up until a restart."""
LOSSES = 8
"""Consecutive losses of the worker group after which the stage is given up: it may cause them (out of memory)."""


@dataclass
class _Record:
    faults: int = 0
    losses: int = 0
    not_before: float = 0.0

    @property
    def given_up(self) -> bool:
        return self.faults >= OWN_FAULTS or self.losses >= LOSSES


class Retries:
    """Failures by subject. A success clears them, and so does a restart, which is how an operator retries."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._records: dict[FailureSubject, _Record] = {}

    def failed(self, subject: FailureSubject, lost: bool) -> None:
        """Count a failure. `lost`: its process died; otherwise it is the subject's own fault. Each doubles the wait."""
        record = self._records.setdefault(subject, _Record())
        if lost:
            record.losses += 1
        else:
            record.faults += 1
        attempts = record.losses + record.faults
        wait = min(FIRST_WAIT_SECONDS * 2 ** (attempts - 1), LONGEST_WAIT_SECONDS)
        record.not_before = self._clock() + wait

    def succeeded(self, subject: FailureSubject) -> None:
        """Clear its failures."""
        self._records.pop(subject, None)

    @property
    def waiting(self) -> frozenset[FailureSubject]:
        """Subjects that must not be retried now: they failed recently, or are given up."""
        now = self._clock()
        return frozenset(
            subject for subject, record in self._records.items() if record.given_up or record.not_before > now
        )

    @property
    def given_up(self) -> frozenset[FailureSubject]:
        """Subjects that failed too often."""
        return frozenset(subject for subject, record in self._records.items() if record.given_up)
