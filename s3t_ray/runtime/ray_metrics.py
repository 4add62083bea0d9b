"""The figures of a run as Ray metrics: every Ray node serves them to Prometheus.

In: a ledger, the scheduler's views and its snapshot. Out: gauges and counters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.run.shard_view import ShardView
from s3t_ray.scheduler.loop import Snapshot
from s3t_ray.scheduler.metrics import COUNTERS, GAUGES, SECONDS_BETWEEN, Figures, measure
from s3t_ray.scheduler.state import UNFINISHED


class RayMetrics:
    """The gauges and counters of one scheduler. Made and used in the scheduler's actor, by one thread."""

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        from ray.util.metrics import Counter, Gauge

        self._run = run
        self._clock = clock
        self._next = clock()
        self._gauges: dict[str, Any] = {name: Gauge(name, text, keys) for name, (text, keys) in GAUGES.items()}
        self._counters: dict[str, Any] = {name: Counter(name, text, keys) for name, (text, keys) in COUNTERS.items()}
        self._counted = dict.fromkeys(COUNTERS, 0)

    def look(self, ledger: Ledger, views: Mapping[int, ShardView], snapshot: Snapshot) -> None:
        """Read and show the figures, if the last time is long enough ago."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + SECONDS_BETWEEN
        figures = measure(
            views,
            snapshot.running,
            [row for state in UNFINISHED for row in ledger.deletions(state)],
            datetime.now(UTC),
            restored=ledger.certificate_head().sequence,  # a deletion is restored with its certificate
            given_up=len(snapshot.given_up),
            groups=snapshot.groups,
            trained=snapshot.trained,
            tokens=snapshot.tokens,
        )
        self.show(figures)

    def show(self, figures: Figures) -> None:
        """Set every gauge, and count on."""
        for state, count in figures.deletions.items():
            self._set("s3t_deletions", count, state=state)
        for shard, depth in figures.depths.items():
            self._set("s3t_shard_depth", depth, shard=str(shard))
        self._set("s3t_oldest_unfinished_deletion_seconds", figures.oldest_unfinished_seconds)
        self._set("s3t_shard_depth_most", figures.most_depth)
        self._set("s3t_stages_queued", figures.queued)
        self._set("s3t_stages_running", figures.running)
        self._set("s3t_stages_given_up", figures.given_up)
        self._set("s3t_tokens_per_second", figures.tokens_per_second)
        self._set("s3t_worker_groups", figures.groups)
        self._set("s3t_worker_groups_busy_share", figures.busy_share)
        self._count("s3t_stages_trained", figures.trained)
        self._count("s3t_tokens_trained", figures.tokens)

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._gauges[name].set(value, tags={"run": self._run, **tags})

    def _count(self, name: str, total: int) -> None:
        more = total - self._counted[name]
        if more > 0:
            self._counters[name].inc(more, tags={"run": self._run})
            self._counted[name] = total
