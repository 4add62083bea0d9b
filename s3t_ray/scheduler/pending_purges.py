"""Which deletions the purge of a shard covers, and what it must erase that the ledger knows nothing of.

The scheduler's bookkeeping, pure. Forgotten at a restart: then every shard of an unfinished deletion is
purged again, which changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from s3t_ray.ledger.failure_rows import retry_name
from s3t_ray.ledger.values import DeletionRow, DeletionState
from s3t_ray.plan.stages import HOLDOUT_SHARD, Stage
from s3t_ray.run.shard_view import ShardView


def shards_hit(deletion: DeletionRow) -> frozenset[int]:
    """Shards that lost records to this deletion."""
    return frozenset(hit.shard for hit in deletion.receipt.hits)


def shards_to_purge(deletion: DeletionRow) -> frozenset[int]:
    """Shards whose purge this deletion waits for: those it hit, and the owner of what belongs to no shard."""
    return shards_hit(deletion) | {HOLDOUT_SHARD}


def all_given_up(deletions: Iterable[DeletionRow], given_up: frozenset[str], views: Mapping[int, ShardView]) -> bool:
    """Whether each only waits for a stage or a purge that failed too often, or for a deletion that does.

    Deletions that others wait for come before those; `given_up`: stages, and names of purges.
    """
    stuck: set[str] = set()
    for deletion in deletions:
        match deletion.state:
            case DeletionState.PRUNED:
                own = any(retry_name(shard) in given_up for shard in shards_to_purge(deletion))
            case DeletionState.PURGED:
                own = any(views[shard].missing & given_up for shard in shards_hit(deletion))
            case _:
                own = False
        if not own and stuck.isdisjoint(deletion.waits_for):
            return False
        stuck.add(deletion.receipt.request_id)
    return True


@dataclass(frozen=True)
class _Covered:
    requests: tuple[str, ...]
    stages: tuple[str, ...]


class Purges:
    """At most one purge a shard is on its way; what comes meanwhile goes into the next."""

    def __init__(self) -> None:
        self._covering: dict[int, _Covered] = {}
        self._done: dict[str, set[int]] = defaultdict(set)  # request -> shards purged
        self._begun: dict[int, set[str]] = defaultdict(set)

    @property
    def shards(self) -> frozenset[int]:
        """Shards whose purge is on its way."""
        return frozenset(self._covering)

    def begun(self, stage: Stage) -> None:
        """A group trains this stage: from now on it may have left bytes, even if it dies."""
        self._begun[stage.shard].add(stage.id)

    def accepted(self, stage: Stage) -> None:
        """The ledger knows the stage: its bytes are purged through it."""
        self._begun[stage.shard].discard(stage.id)

    def due(self, pruned: Iterable[DeletionRow], views: Mapping[int, ShardView]) -> dict[int, tuple[str, ...]]:
        """Shards to purge, with the requests that a purge begun now covers."""
        waiting: dict[int, list[str]] = defaultdict(list)
        for deletion in pruned:
            request = deletion.receipt.request_id
            for shard in shards_to_purge(deletion) - self._done[request]:
                waiting[shard].append(request)
        for shard, view in views.items():
            if view.stale:  # of orders that the config no longer asks for, damaged, or left by a predecessor
                waiting.setdefault(shard, [])
        return {shard: tuple(requests) for shard, requests in waiting.items() if shard not in self._covering}

    def start(self, view: ShardView, requests: tuple[str, ...], training: Iterable[str]) -> tuple[str, ...]:
        """Note the purge; the stages it must erase that no ledger row accounts for and nobody wants."""
        shard = view.plan.shard
        stages = tuple(sorted(self._begun[shard] - view.plan.stages.keys() - set(training)))
        self._covering[shard] = _Covered(requests, stages)
        return stages

    def ended(self, shard: int) -> None:
        """The purge went through."""
        covered = self._covering.pop(shard)
        self._begun[shard].difference_update(covered.stages)
        for request in covered.requests:
            self._done[request].add(shard)

    def failed(self, shard: int) -> None:
        """The purge did not go through: all that it covered is due again."""
        self._covering.pop(shard)

    def complete(self, deletion: DeletionRow) -> bool:
        """Whether every shard of the deletion was purged after it was pruned."""
        return shards_to_purge(deletion) <= self._done[deletion.receipt.request_id]

    def forget(self, deletion: DeletionRow) -> None:
        """The ledger says it is purged."""
        self._done.pop(deletion.receipt.request_id, None)
