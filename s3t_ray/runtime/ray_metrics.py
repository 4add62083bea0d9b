"""Exports a run's figures as Ray metrics, which every Ray node serves to Prometheus.

In: a ledger, the scheduler's views and its snapshot. Out: gauges and counters.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import DeletionState
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView
from s3t_ray.scheduler.loop import Snapshot
from s3t_ray.scheduler.metrics import (
    COUNTERS,
    FROM_LEDGER,
    GAUGES,
    SECONDS_BETWEEN,
    Figures,
    measure,
    measure_ledger,
)
from s3t_ray.scheduler.policy.state import UNFINISHED

LEDGER_SECONDS = 10.0
"""Seconds between two reads of the ledger without a scheduler: the interval at which Ray exports metrics."""

_log = logging.getLogger(__name__)


class RayMetrics:
    """The gauges and counters of one process, by default of a scheduler. Created and used by one thread."""

    def __init__(
        self, run: str, clock: Callable[[], float] = time.monotonic, gauges: Collection[str] = GAUGES.keys()
    ) -> None:
        from ray.util.metrics import Counter, Gauge

        self._run = run
        self._clock = clock
        self._next = clock()
        self._gauges: dict[str, Any] = {
            name: Gauge(name, text, keys) for name, (text, keys) in GAUGES.items() if name in gauges
        }
        self._counters: dict[str, Any] = {name: Counter(name, text, keys) for name, (text, keys) in COUNTERS.items()}
        self._counted = dict.fromkeys(COUNTERS, 0)

    def look(self, ledger: Ledger, views: Mapping[int, ShardView], snapshot: Snapshot) -> None:
        """Read and export the figures, unless that was done recently."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + SECONDS_BETWEEN
        figures = measure(
            views,
            snapshot.running,
            [row for state in UNFINISHED for row in ledger.deletions(state)],
            datetime.now(UTC),
            restored=ledger.count_deletions(DeletionState.RESTORED),
            given_up=len(snapshot.given_up),
            groups=snapshot.groups,
            waiting=snapshot.waiting_groups,
            trained=snapshot.trained,
            tokens=snapshot.tokens,
        )
        self.show(figures)

    def show(self, figures: Figures) -> None:
        """Set all gauges of this reporter, and increase its counters."""
        for sample in figures.samples():
            if sample.name in self._gauges:
                self._gauges[sample.name].set(sample.value, tags={"run": self._run, **sample.labels})
        self._count("s3t_stages_trained", figures.trained)
        self._count("s3t_tokens_trained", figures.tokens)

    def _count(self, name: str, total: int) -> None:
        more = total - self._counted[name]
        if more > 0:
            self._counters[name].inc(more, tags={"run": self._run})
            self._counted[name] = total


def report_ledger(run: Run, stop: threading.Event) -> None:
    """Report the figures in the ledger until `stop`, whether or not a scheduler is active. Call it in a thread."""
    metrics = RayMetrics(run.row.name, gauges=FROM_LEDGER)
    while not stop.wait(LEDGER_SECONDS):
        try:
            metrics.show(measure_ledger(run, datetime.now(UTC)))
        except LedgerError as error:
            _log.warning("the ledger cannot be read, so nothing is reported: %s", error)
