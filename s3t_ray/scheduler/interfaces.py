"""Interfaces of the scheduler to worker groups, shard owners, serving replicas and other runs, with their values.

`runtime/` implements them with Ray; the tests implement them in the same process.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from s3t_ray.errors import ClusterError
from s3t_ray.ledger.values import RunningStage
from s3t_ray.plan.fair_shares import Claim
from s3t_ray.plan.resources import Resources
from s3t_ray.run.shard_view import ShardView
from s3t_ray.train.job import StageJob, StageResult


@dataclass(frozen=True)
class Finished:
    """A stage that left its worker group. Exactly one of: a result, an error, or neither (stopped)."""

    group: int
    stage_id: str
    result: StageResult | None = None
    error: str | None = None
    lost: bool = False
    """The group died during the stage, which is not known to be the stage's own fault."""


class WorkerGroups(Protocol):
    """Worker groups, by index. Not thread-safe: the scheduler's thread is the only caller."""

    def free(self) -> tuple[int, ...]:
        """Groups that can take a stage now."""
        ...

    def submit(self, group: int, job: StageJob) -> None:
        """Start a stage on a free group; returns immediately."""
        ...

    def finished(self, wait_seconds: float) -> tuple[Finished, ...]:
        """Stages that ended since the last call; waits up to `wait_seconds` for the first."""
        ...

    def running(self) -> tuple[RunningStage, ...]:
        """The stages in training, with their last step."""
        ...

    def stop(self, stage_id: str) -> None:
        """Ask a stage to stop at its next step; `finished` reports it."""
        ...

    def close(self) -> None:
        """End all groups."""
        ...


class Shards(Protocol):
    """The shard owners, by index; the held-out data is shard -1."""

    def views(self) -> dict[int, ShardView]: ...

    def prune(self, shards: Iterable[int]) -> dict[int, ShardView]:
        """Prune these shards in parallel. Returns their views afterwards."""
        ...

    def start_purge(self, shard: int, stopped: tuple[str, ...]) -> None:
        """Start purging a shard; returns immediately."""
        ...

    def finished_purges(self) -> dict[int, ShardView | Exception]:
        """Purges that ended since the last call: the view afterwards, or the error."""
        ...


class Replicas(Protocol):
    """The serving replicas."""

    def set_live(self, chains: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        """Make every replica confirm the live set; one that cannot is taken out of service.

        Returns the replicas that serve only part of this set, because they could not load a stage.
        """
        ...


class Confirmation(Protocol):
    """The answer to a live set, which may be pending."""

    def version(self, wait_seconds: float) -> int | None:
        """The version that the replica serves; None if it died or did not answer in time.

        Raises StoreError or TrainError when it cannot load a stage of the live set.
        """
        ...


class ServingReplica(Protocol):
    """One serving replica."""

    def ask(self, version: int, chains: Mapping[int, tuple[str, ...]]) -> Confirmation:
        """Ask the replica to serve this live set; returns immediately."""
        ...

    def end(self) -> None:
        """Kill the replica, so that it no longer answers."""
        ...


class OwnerLost(ClusterError):
    """A shard's owner died, or did not answer in time."""


class OwnerFailed(Exception):
    """A shard's owner raised an error that is not one of ours: a bug, or an error of a library."""


class OwnerCalls(Protocol):
    """The processes that own the shards, by block number.

    Calls are asynchronous: each returns a value that identifies the later answer.
    """

    def start(self, block: int, shards: tuple[int, ...]) -> None:
        """Start an owner for these shards, which have none."""
        ...

    def end(self, block: int) -> None:
        """Kill the owner of the block, even if it is busy."""
        ...

    def views(self, block: int, shards: tuple[int, ...]) -> Hashable: ...

    def prune(self, block: int, epoch: int, shards: tuple[int, ...]) -> Hashable: ...

    def purge(self, block: int, epoch: int, shard: int, stages: tuple[str, ...]) -> Hashable: ...

    def ended(self, calls: Collection[Hashable]) -> Collection[Hashable]:
        """The calls that have an answer or an error."""
        ...

    def answer(self, call: Hashable, wait_seconds: float) -> Mapping[int, ShardView]:
        """The answer to a call, by shard. Raises OwnerLost, OwnerFailed, or the error of ours that the owner raised."""
        ...


class Peers(Protocol):
    """The cluster and the schedulers of its other runs, with respect to worker groups."""

    @property
    def own(self) -> str:
        """Name of this run's scheduler."""
        ...

    def nodes(self) -> list[Resources]:
        """Resources of each node that is alive."""
        ...

    def names(self) -> set[str]:
        """The schedulers of the other runs."""
        ...

    def ask(self, name: str) -> None:
        """Ask another scheduler for its claim; returns immediately."""
        ...

    def answers(self, wait_seconds: float) -> Mapping[str, Claim | None]:
        """Answers since the last call; waits up to `wait_seconds` for all. None: no claim, or the scheduler is gone."""
        ...
