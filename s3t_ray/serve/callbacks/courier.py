"""Notifies one receiver of every state of every deletion, at least once and in order, from the ledger alone.

In: an open run, a receiver. Out: messages. The receiver's position is a row of the ledger, which advances only after
the receiver has accepted a message. A sender that is killed in between sends the message again, under the same id. A
failed delivery is retried without limit, at intervals that double up to ten minutes; the run never waits for it.
"""

from __future__ import annotations

import logging
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping

from s3t_ray.errors import S3TError
from s3t_ray.run.deletion_list import listed_deletion
from s3t_ray.run.run import Run
from s3t_ray.serve.callbacks.callback_messages import STATES, StateReached, body_of, headers_of, states_reached
from s3t_ray.serve.callbacks.receivers import Receiver
from s3t_ray.serve.callbacks.safe_post import CallbackFailed, post

LOOK_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 600.0

Send = Callable[[str, bytes, Mapping[str, str], bool], None]
"""Posts a body to an address, which may or may not be private. Raises CallbackFailed."""

_log = logging.getLogger(__name__)


class Courier:
    """Delivers to one receiver; not thread-safe."""

    def __init__(
        self, run: Run, receiver: Receiver, send: Send | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._run = run
        self._receiver = receiver
        self._send = _sender() if send is None else send
        self._now = now
        self._row = run.ledger.callbacks.begin(receiver.name)
        self._position, self._failures = self._row.position, self._row.attempts

    def deliver(self) -> float:
        """Send all due messages, up to the first failure. Returns the seconds until the next attempt."""
        for reached in self._due():
            if reached.state in self._receiver.states:
                try:
                    self._post(reached)
                except CallbackFailed as error:
                    self._run.ledger.callbacks.failed(self._receiver.name, self._position, error.problem)
                    self._failures += 1
                    _log.warning("callback to %s: %s", self._receiver.name, error.problem)
                    return _pause(self._failures)
            self._run.ledger.callbacks.taken(self._receiver.name, reached.seq)
            self._position, self._failures = reached.seq, 0
        return LOOK_SECONDS

    def _due(self) -> list[StateReached]:
        events = self._run.ledger.events(self._position - 1, tuple(STATES))
        return list(states_reached(events, self._position))

    def _post(self, reached: StateReached) -> None:
        listed = listed_deletion(self._run, reached.request_id)
        references = [told.reference for told in listed.requests if told.reference is not None]
        body = body_of(reached, self._run.row.name, listed.records, references, listed.due_at)
        message_id = f"msg_{self._run.ledger.run_id}_{reached.seq}"
        headers = headers_of(message_id, int(self._now()), body, self._receiver.keys)
        self._send(self._receiver.url, body, headers, self._receiver.private)


def keep_delivering(run: Run, receiver: Receiver, stop: threading.Event) -> None:
    """Deliver until `stop`. Call it in a separate thread, so that a slow receiver does not delay others."""
    courier: Courier | None = None
    pause = 0.0
    while not stop.wait(pause):
        try:
            courier = courier or Courier(run, receiver)
            pause = courier.deliver()
        except S3TError as error:  # probably from the ledger
            _log.warning("callbacks to %s wait: %s", receiver.name, error.problem)
            pause = LONGEST_PAUSE_SECONDS / 20


def _pause(failures: int) -> float:
    """Seconds before the next attempt: doubles, with random jitter."""
    return min(2.0 ** min(failures, 20), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)


def _sender() -> Send:
    trusted = ssl.create_default_context()
    return lambda url, body, headers, private: post(url, body, headers, private, trusted)
