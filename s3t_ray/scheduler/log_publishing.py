"""Keeps the published log up to date with the ledger's log, at the end of every round of the scheduler.

In: a run, and the scheduler's epoch. Out: a published checkpoint that covers every receipt and certificate, with the
cosignatures of the configured witnesses and an occasional timestamp; or a failure, which `s3t status` shows and the
next rounds retry. It never delays a deletion: entries that cannot be published now are published later together with
newer ones, and a separate thread contacts third parties.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from s3t_ray.errors import S3TError, problem_of
from s3t_ray.ledger.rows.failure_rows import FailedLog
from s3t_ray.ledger.values import Fenced
from s3t_ray.run.log.log_timestamps import Timestamps
from s3t_ray.run.log.log_witnesses import cosign, require_cosigned
from s3t_ray.run.log.published_log import publish, published
from s3t_ray.run.run import Run
from s3t_ray.scheduler.policy.retries import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS
from s3t_ray.tlog.signed_note import SignedNote


class LogPublishing:
    """Belongs to one scheduler and its thread. `round` raises `Fenced` once a newer scheduler exists."""

    def __init__(self, run: Run, epoch: int, clock: Callable[[], float]) -> None:
        self._run = run
        self._epoch = epoch
        self._clock = clock
        self._done = 0  # entries that are published and cosigned
        self._asked = 0  # entries of the checkpoint sent to witnesses; 0: none
        self._timestamps = Timestamps(run)
        self._answers: SimpleQueue[S3TError | None] = SimpleQueue()
        self._asking: threading.Thread | None = None
        self._attempts = 0  # consecutive failures
        self._not_before = 0.0
        self._failed = any(row.subject == FailedLog() for row in run.ledger.failures())

    def round(self) -> None:
        """Publish the new entries of the log."""
        newest = self._run.ledger.log_head().sequence
        if self._asked:
            self._collect()
        if self._asked or newest == self._done or self._clock() < self._not_before:
            return
        try:
            note = publish(self._run)
        except Fenced:
            raise
        except S3TError as error:
            self._in_vain(error)
            return
        settings = self._run.config.log
        if note is None or not (settings.witnesses or settings.timestamps):
            self._succeeded(newest)
            return
        self._asked = newest
        self._asking = threading.Thread(target=self._ask, args=(note,), daemon=True, name="witnesses")
        self._asking.start()

    def end(self, wait_seconds: float) -> None:
        """Run a last round and wait for pending witnesses, because the next scheduler may start much later."""
        self.round()
        if self._asking is not None:
            self._asking.join(wait_seconds)
        if self._asked:
            self._collect()

    def _ask(self, note: SignedNote) -> None:
        """Ask the witnesses, in a separate thread."""
        try:
            answers = cosign(self._run, note)
            self._timestamps.stamp(published(self._run) or note)  # even if a witness refused
            require_cosigned(answers)
        except S3TError as error:
            self._answers.put(error)
        else:
            self._answers.put(None)

    def _collect(self) -> None:
        if self._answers.empty():
            return
        error, asked = self._answers.get(), self._asked
        self._asked = 0
        if error is None:
            self._succeeded(asked)
        else:
            self._in_vain(error)

    def _in_vain(self, error: S3TError) -> None:
        self._attempts += 1
        wait = min(FIRST_WAIT_SECONDS * 2 ** (self._attempts - 1), LONGEST_WAIT_SECONDS)
        self._not_before = self._clock() + wait
        self._failed = True
        self._run.ledger.record_failure(self._epoch, FailedLog(), problem_of(error))

    def _succeeded(self, entries: int) -> None:
        self._done, self._attempts = entries, 0
        if self._failed:
            self._run.ledger.forget_failure(self._epoch, FailedLog())
            self._failed = False
