"""What the scheduler needs of worker groups, shard owners and serving replicas, as interfaces and value types.

`runtime/` has the real ones, on Ray; the tests' ones run in the same process.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from s3t_ray.ledger.values import RunningStage
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
