"""The content of a callback, and its signature according to Standard Webhooks (standardwebhooks.com). Pure.

In: events of the ledger's history. Out: a body and headers. A message has the same id at every attempt, so a receiver
can drop repeats. The signature is HMAC-SHA256 over id, time and body.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from s3t_ray.ledger.values import Event, EventKind

STATES = {
    EventKind.DELETION_ACCEPTED: "accepted",
    EventKind.DELETION_PRUNED: "pruned",
    EventKind.DELETION_PURGED: "purged",
    EventKind.DELETION_RESTORED: "restored",
}


@dataclass(frozen=True)
class StateReached:
    """A deletion has reached a state."""

    seq: int
    at: str
    request_id: str
    state: str


def states_reached(events: Sequence[Event], after: int) -> Iterator[StateReached]:
    """The states reached in these ordered events, with a number above `after`.

    An accepted deletion has one event per affected shard, with consecutive numbers, and only the first counts. So
    `events` must also contain the event `after` itself, if it is of this kind.
    """
    before: tuple[int, str, str] | None = None
    for event in events:
        request = str(json.loads(event.detail)["request"])
        if before != (event.seq - 1, event.kind, request) and event.seq > after:
            yield StateReached(event.seq, event.at, request, STATES[EventKind(event.kind)])
        before = (event.seq, event.kind, request)


def body_of(reached: StateReached, run: str, records: int, references: Sequence[str], due_at: str | None) -> bytes:
    """The body. Contains no record ids or persons; receivers can request more with a token."""
    data = {
        "run": run,
        "request_id": reached.request_id,
        "state": reached.state,
        "records": records,
        "references": list(references),
        "due_at": due_at,
    }
    document = {"type": f"deletion.{reached.state}", "timestamp": reached.at, "data": data}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def headers_of(message_id: str, now: int, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    """The headers; `now`: time of this attempt, in seconds since 1970."""
    said = f"{message_id}.{now}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(key, said, "sha256")).decode() for key in keys)
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
