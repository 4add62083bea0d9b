"""Extracts from the ledger's events what the depth chart needs. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

from s3t_ray.demo.pictures import DepthPoint, Mark, MarkKind
from s3t_ray.ledger.values import Event, EventKind
from s3t_ray.scheduler.scheduler import DEPTHS

_MARKS = {
    EventKind.DELETION_ACCEPTED: ("deletion accepted", MarkKind.DELETION),
    EventKind.DELETION_PURGED: ("purged", MarkKind.NOTE),
    EventKind.DELETION_RESTORED: ("restored, certificate", MarkKind.NOTE),
}


def depth_points(events: Iterable[Event]) -> list[DepthPoint]:
    """The depth of every sequence over time, in seconds since the first event."""
    start, points = None, []
    for event in events:
        start = start or datetime.fromisoformat(event.at)
        if event.kind == DEPTHS and event.shard is not None:
            at = (datetime.fromisoformat(event.at) - start).total_seconds()
            depths = json.loads(event.detail)["depths"]
            points += [DepthPoint(at, event.shard, sequence, depth) for sequence, depth in enumerate(depths)]
    return points


def marks(events: Iterable[Event]) -> list[Mark]:
    """The deletion events to mark, in seconds since the first event."""
    start, found = None, []
    for event in events:
        start = start or datetime.fromisoformat(event.at)
        if event.kind in _MARKS:
            label, kind = _MARKS[EventKind(event.kind)]
            found.append(Mark((datetime.fromisoformat(event.at) - start).total_seconds(), label, kind))
    return found
