"""What an operator watches, as Ray metrics: every Ray node serves them to Prometheus.

In: the scheduler's views and snapshot, and the deletions of the ledger that are on their way. Out:
gauges and counters named `s3t_...` (Prometheus sees `ray_s3t_...`), each with the name of the run.
Never an id of a record, a subject or a stage: counts, depths and seconds only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import DeletionRow, DeletionState
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.runtime.reports import RunningStage
from s3t_ray.runtime.view import ShardView

if TYPE_CHECKING:
    from s3t_ray.runtime.actors import Snapshot

SECONDS_BETWEEN = 2.0
"""Between two readings: the figures cost a few reads of the ledger, and Ray exports them every 10 s anyway."""

UNFINISHED = (DeletionState.ACCEPTED, DeletionState.PRUNED, DeletionState.PURGED)

GAUGES = {
    "s3t_deletions": ("Deletions by state.", ("run", "state")),
    "s3t_oldest_unfinished_deletion_seconds": ("Age of the oldest deletion without a certificate.", ("run",)),
    "s3t_shard_depth": ("Stages that the shard serves from; 0: the shard is dead.", ("run", "shard")),
    "s3t_shard_depth_most": ("Depth of a fully trained shard.", ("run",)),
    "s3t_stages_queued": ("Stages that are wanted, not trained and not in training.", ("run",)),
    "s3t_stages_running": ("Stages in training.", ("run",)),
    "s3t_stages_given_up": ("Stages that failed too often: somebody must look.", ("run",)),
    "s3t_tokens_per_second": ("Tokens trained a second, over all worker groups.", ("run",)),
    "s3t_worker_groups": ("Worker groups.", ("run",)),
    "s3t_worker_groups_busy_share": ("Share of the worker groups that train, 0 to 1.", ("run",)),
}
COUNTERS = {
    "s3t_stages_trained": ("Stages trained since the scheduler began.", ("run",)),
    "s3t_tokens_trained": ("Tokens trained since the scheduler began.", ("run",)),
}


@dataclass(frozen=True)
class Figures:
    """One reading."""

    deletions: Mapping[str, int]  # by state
    oldest_unfinished_seconds: float  # 0.0: none is unfinished
    depths: Mapping[int, int]  # by shard
    most_depth: int
    queued: int
    running: int
    given_up: int
    tokens_per_second: float
    groups: int
    trained: int
    tokens: int

    @property
    def busy_share(self) -> float:
        return min(1.0, self.running / self.groups) if self.groups else 0.0


def measure(
    views: Mapping[int, ShardView],
    running: Iterable[RunningStage],
    unfinished: Iterable[DeletionRow],
    now: datetime,
    *,
    restored: int,
    given_up: int,
    groups: int,
    trained: int,
    tokens: int,
) -> Figures:
    """The figures of this moment. Pure."""
    stages, rows = tuple(running), tuple(unfinished)
    shards = {shard: view for shard, view in views.items() if shard != HOLDOUT_SHARD}
    missing = {name for view in shards.values() for name in view.plan.stages.keys() - view.live}
    by_state = {str(state): sum(row.state is state for row in rows) for state in UNFINISHED}
    ages = [(now - datetime.fromisoformat(row.times.accepted)).total_seconds() for row in rows]
    return Figures(
        deletions={**by_state, str(DeletionState.RESTORED): restored},
        oldest_unfinished_seconds=max(ages, default=0.0),
        depths={shard: max(view.depths, default=0) for shard, view in shards.items()},
        most_depth=max((len(order) for view in shards.values() for order in view.plan.orders), default=0),
        queued=len(missing - {stage.stage_id for stage in stages}),
        running=len(stages),
        given_up=given_up,
        tokens_per_second=sum(stage.tokens_per_second or 0.0 for stage in stages),
        groups=groups,
        trained=trained,
        tokens=tokens,
    )


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
