"""Keeps the published log up with the ledger's: looked at in every round of the scheduler, after all deeds.

In: a run, and the scheduler's epoch. Out: a published checkpoint that covers every receipt and certificate, or a
failure that `s3t status` shows and that is tried again. It never keeps a deletion waiting: a log that cannot be
published now is published later, with all that came meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from s3t_ray.errors import S3TError, problem_of
from s3t_ray.ledger.failure_rows import FailedLog
from s3t_ray.ledger.values import Fenced
from s3t_ray.run.published_log import publish
from s3t_ray.run.run import Run
from s3t_ray.scheduler.retries import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS


class LogPublishing:
    """Of one scheduler, by its thread. `round` raises `Fenced` once a newer one exists."""

    def __init__(self, run: Run, epoch: int, clock: Callable[[], float]) -> None:
        self._run = run
        self._epoch = epoch
        self._clock = clock
        self._published = 0  # entries
        self._attempts = 0  # in vain, in a row
        self._not_before = 0.0
        self._failed = any(row.subject == FailedLog() for row in run.ledger.failures())

    def round(self) -> None:
        """Publish what the log has gained."""
        newest = self._run.ledger.log_head().sequence
        if newest == self._published or self._clock() < self._not_before:
            return
        try:
            publish(self._run)
        except Fenced:
            raise
        except S3TError as error:
            self._attempts += 1
            wait = min(FIRST_WAIT_SECONDS * 2 ** (self._attempts - 1), LONGEST_WAIT_SECONDS)
            self._not_before = self._clock() + wait
            self._failed = True
            self._run.ledger.record_failure(self._epoch, FailedLog(), problem_of(error))
            return
        self._published, self._attempts = newest, 0
        if self._failed:
            self._run.ledger.forget_failure(self._epoch, FailedLog())
            self._failed = False
