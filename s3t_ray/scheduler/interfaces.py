"""What the scheduler needs of worker groups, shard owners, serving replicas and other runs: interfaces and values.

`runtime/` has the real ones, on Ray; the tests' ones run in the same process.
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
    """The group died with the stage: not the stage's own fault, as far as is known."""


class WorkerGroups(Protocol):
    """Worker groups, by index. Not thread-safe: the scheduler's thread is the only caller."""

    def free(self) -> tuple[int, ...]:
        """Groups that can take a stage now."""
        ...

    def submit(self, group: int, job: StageJob) -> None:
        """Begin a stage on a free group; returns at once."""
        ...

    def finished(self, wait_seconds: float) -> tuple[Finished, ...]:
        """Stages that ended since the last call; waits up to `wait_seconds` for the first."""
        ...

    def running(self) -> tuple[RunningStage, ...]:
        """The stages in training, with their last step."""
        ...

    def stop(self, stage_id: str) -> None:
        """Ask for the end of a stage at its next step; `finished` reports it."""
        ...

    def close(self) -> None:
        """End all groups."""
        ...


class Shards(Protocol):
    """The shard owners, by index; the held-out data is shard -1."""

    def views(self) -> dict[int, ShardView]: ...

    def prune(self, shards: Iterable[int]) -> dict[int, ShardView]:
        """Prune these shards side by side; their views after it."""
        ...

    def start_purge(self, shard: int, stopped: tuple[str, ...]) -> None:
        """Begin to purge a shard; returns at once."""
        ...

    def finished_purges(self) -> dict[int, ShardView | Exception]:
        """Purges that ended since the last call, with the view after each, or what stopped it."""
        ...


class Replicas(Protocol):
    """The serving replicas."""

    def set_live(self, chains: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        """Have every replica confirm the live set; one that cannot is taken out of service.

        Returns the replicas that serve less than this set, because they could not load a stage of it.
        """
        ...


class Confirmation(Protocol):
    """The answer to a live set, which may be on its way."""

    def version(self, wait_seconds: float) -> int | None:
        """The version that the replica serves; None: it died, or did not answer in time.

        Raises StoreError or TrainError when it cannot load a stage of the live set.
        """
        ...


class ServingReplica(Protocol):
    """One serving replica."""

    def ask(self, version: int, chains: Mapping[int, tuple[str, ...]]) -> Confirmation:
        """Have it serve this live set; returns at once."""
        ...

    def end(self) -> None:
        """It must no longer answer."""
        ...


class OwnerLost(ClusterError):
    """A shard's owner died, or did not answer in time."""


class OwnerFailed(Exception):
    """A shard's owner raised what is not one of our errors: a bug, or an error of a library."""


class OwnerCalls(Protocol):
    """The processes that own the shards, by the number of their block of shards.

    A call is answered later: it is a value that names the answer.
    """

    def start(self, block: int, shards: tuple[int, ...]) -> None:
        """Begin the owner of these shards, which have none."""
        ...

    def end(self, block: int) -> None:
        """End the owner of the block, whatever it does."""
        ...

    def views(self, block: int, shards: tuple[int, ...]) -> Hashable: ...

    def prune(self, block: int, epoch: int, shards: tuple[int, ...]) -> Hashable: ...

    def purge(self, block: int, epoch: int, shard: int, stages: tuple[str, ...]) -> Hashable: ...

    def ended(self, calls: Collection[Hashable]) -> Collection[Hashable]:
        """Those of the calls that have been answered, in whatever way."""
        ...

    def answer(self, call: Hashable, wait_seconds: float) -> Mapping[int, ShardView]:
        """The answer to a call, by shard. Raises OwnerLost, OwnerFailed, or the error of ours that the owner raised."""
        ...


class Peers(Protocol):
    """The cluster and the schedulers of other runs in it, as far as worker groups are concerned."""

    @property
    def own(self) -> str:
        """Name of this run's scheduler."""
        ...

    def nodes(self) -> list[Resources]:
        """What each node has, of those that are alive."""
        ...

    def names(self) -> set[str]:
        """The schedulers of the other runs."""
        ...

    def ask(self, name: str) -> None:
        """Ask one of them what it claims; returns at once."""
        ...

    def answers(self, wait_seconds: float) -> Mapping[str, Claim | None]:
        """Answers since the last call; waits up to `wait_seconds` for all. None: it claims nothing, or it is gone."""
        ...
