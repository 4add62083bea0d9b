"""The scheduler's knowledge at one moment: the input of every decision. Frozen and pure.

In: views of the shards, the unfinished deletions of the ledger, and what the scheduler remembers (`bookkeeping.py`).
Nothing here is authoritative: a new scheduler starts with an empty memory and reaches the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from s3t_ray.config.schema import Requeue
from s3t_ray.ledger.rows.failure_rows import FailedPurge, FailedStage, FailureSubject
from s3t_ray.ledger.values import DeletionRow, DeletionState
from s3t_ray.plan.stages import HOLDOUT_SHARD, Stage
from s3t_ray.run.shard_view import ShardView

UNFINISHED = (DeletionState.ACCEPTED, DeletionState.PRUNED, DeletionState.PURGED)
"""States of unfinished deletions, least advanced first, so that each deletion follows those that it waits for."""


@dataclass(frozen=True)
class State:
    """All inputs of a decision, at one moment."""

    policy: Requeue
    now: float
    """Seconds of a monotonic clock."""
    views: Mapping[int, ShardView]
    changed: frozenset[int] = frozenset()
    """Shards read again since the last decision; in all others, every stage in training is still valid."""
    deletions: tuple[DeletionRow, ...] = ()
    """Deletions that are not restored; each follows those that it waits for."""
    training: Mapping[str, Stage] = field(default_factory=dict)
    stopping: frozenset[str] = frozenset()
    """Stages in training that were asked to stop."""
    unaccounted: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """By shard: stages that started training and have no row in the ledger; they may have left bytes."""
    viewed: frozenset[str] = frozenset()
    """Requests whose shards were read after their acceptance."""
    serving: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """What the replicas should serve: by shard, the stages of its deepest live model."""
    confirmed: Mapping[int, tuple[str, ...]] | None = None
    """The last live set that every replica confirmed; None if some replica has not received any."""
    confirmed_in_part: bool = False
    """A replica could not load a stage of it."""
    followed_to: int | None = None
    """Position in the history up to which every external server has confirmed; None if none follows the run."""
    stale: frozenset[int] = frozenset()
    """Shards with stages out of service whose bytes still exist."""
    purging: frozenset[int] = frozenset()
    """Shards with a purge in progress."""
    purged: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """By request: shards that were purged since the deletion was pruned."""
    unhealed_since: Mapping[int, float] = field(default_factory=dict)
    """By shard: when the oldest deletion that has not healed was seen."""
    waiting: frozenset[FailureSubject] = frozenset()
    """Subjects that failed and must not be retried now, including those given up."""
    given_up: frozenset[FailureSubject] = frozenset()
    postponed: frozenset[str] = frozenset()
    """Requests that could not be certified in this round, because the ledger was too busy."""
    free: tuple[int, ...] = ()
    """Worker groups that can take a stage."""

    @cached_property
    def waiting_stages(self) -> frozenset[str]:
        """Stages that must not be trained now."""
        return frozenset(each.stage_id for each in self.waiting if isinstance(each, FailedStage))

    @cached_property
    def given_up_stages(self) -> frozenset[str]:
        return frozenset(each.stage_id for each in self.given_up if isinstance(each, FailedStage))

    def in_state(self, state: DeletionState) -> tuple[DeletionRow, ...]:
        """The deletions in this state."""
        return tuple(row for row in self.deletions if row.state is state)

    def purge_given_up(self, shard: int) -> bool:
        """Whether the purge of this shard failed too often."""
        return FailedPurge(shard) in self.given_up


def shards_hit(deletion: DeletionRow) -> frozenset[int]:
    """Shards that lost records to this deletion."""
    return frozenset(hit.shard for hit in deletion.receipt.hits)


def shards_to_purge(deletion: DeletionRow) -> frozenset[int]:
    """Shards whose purge this deletion waits for: those it hit, and the owner of data that belongs to no shard."""
    return shards_hit(deletion) | {HOLDOUT_SHARD}
