"""Metrics for operators: figures of a run at one moment.

In: the scheduler's views and snapshot, and the ledger's unfinished deletions. Out: gauges and counters named `s3t_...`
(Prometheus sees `ray_s3t_...`), labeled with the name of the run. They contain counts, depths and seconds only, never
an id of a record, a subject or a stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from s3t_ray.ledger.values import DeletionRow, DeletionState, RunningStage
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, view_shard
from s3t_ray.run.status import noted
from s3t_ray.scheduler.policy.state import UNFINISHED

SECONDS_BETWEEN = 2.0
"""Seconds between readings. Each reads the ledger a few times, and Ray exports every 10 s anyway."""

GAUGES = {
    "s3t_deletions": ("Deletions by state.", ("run", "state")),
    "s3t_oldest_unfinished_deletion_seconds": ("Age of the oldest deletion without a certificate.", ("run",)),
    "s3t_shard_depth": ("Stages that the shard serves from; 0: the shard is dead.", ("run", "shard")),
    "s3t_shard_depth_most": ("Depth of a fully trained shard.", ("run",)),
    "s3t_stages_queued": ("Stages that are still to be trained and not in training.", ("run",)),
    "s3t_stages_running": ("Stages in training.", ("run",)),
    "s3t_stages_given_up": ("Stages that failed too often and need attention.", ("run",)),
    "s3t_tokens_per_second": ("Tokens trained per second, over all worker groups.", ("run",)),
    "s3t_worker_groups": ("Worker groups.", ("run",)),
    "s3t_worker_groups_waiting": ("Worker groups that wait for nodes or for room on nodes.", ("run",)),
    "s3t_worker_groups_busy_share": ("Share of the worker groups that train, 0 to 1.", ("run",)),
}
COUNTERS = {
    "s3t_stages_trained": ("Stages trained since the scheduler began.", ("run",)),
    "s3t_tokens_trained": ("Tokens trained since the scheduler began.", ("run",)),
}
FROM_LEDGER = (
    "s3t_deletions",
    "s3t_oldest_unfinished_deletion_seconds",
    "s3t_shard_depth",
    "s3t_shard_depth_most",
    "s3t_stages_queued",
    "s3t_stages_running",
    "s3t_tokens_per_second",
)
"""The gauges that need no scheduler: any reader of the ledger can report them."""


@dataclass(frozen=True)
class Sample:
    """One value of one gauge; the name of the run is added to its labels."""

    name: str
    value: float
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Figures:
    """One reading."""

    deletions: Mapping[str, int]  # by state
    oldest_unfinished_seconds: float  # 0.0 if none is unfinished
    depths: Mapping[int, int]  # by shard
    most_depth: int
    queued: int
    running: int
    given_up: int
    tokens_per_second: float
    groups: int
    waiting: int
    trained: int
    tokens: int

    @property
    def busy_share(self) -> float:
        return min(1.0, self.running / self.groups) if self.groups else 0.0

    def samples(self) -> Iterator[Sample]:
        """One or more samples of each gauge."""
        for state, count in self.deletions.items():
            yield Sample("s3t_deletions", count, {"state": state})
        for shard, depth in self.depths.items():
            yield Sample("s3t_shard_depth", depth, {"shard": str(shard)})
        for name, value in (
            ("s3t_oldest_unfinished_deletion_seconds", self.oldest_unfinished_seconds),
            ("s3t_shard_depth_most", self.most_depth),
            ("s3t_stages_queued", self.queued),
            ("s3t_stages_running", self.running),
            ("s3t_stages_given_up", self.given_up),
            ("s3t_tokens_per_second", self.tokens_per_second),
            ("s3t_worker_groups", self.groups),
            ("s3t_worker_groups_waiting", self.waiting),
            ("s3t_worker_groups_busy_share", self.busy_share),
        ):
            yield Sample(name, value, {})


def measure(
    views: Mapping[int, ShardView],
    running: Iterable[RunningStage],
    unfinished: Iterable[DeletionRow],
    now: datetime,
    *,
    restored: int,
    given_up: int,
    groups: int,
    waiting: int,
    trained: int,
    tokens: int,
) -> Figures:
    """The current figures. Pure."""
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
        waiting=waiting,
        trained=trained,
        tokens=tokens,
    )


def measure_ledger(run: Run, now: datetime) -> Figures:
    """The figures from the ledger alone; those that only a scheduler knows (not in FROM_LEDGER) are 0."""
    return measure(
        {shard: view_shard(run, shard) for shard in range(run.row.shards)},
        noted(run.ledger.running(), now),
        [row for state in UNFINISHED for row in run.ledger.deletions(state)],
        now,
        restored=run.ledger.count_deletions(DeletionState.RESTORED),
        given_up=0,
        groups=0,
        waiting=0,
        trained=0,
        tokens=0,
    )
