"""Decides what to do now for a run: the scheduler's only decision. Pure.

In: `State`, all inputs of the decision at one moment. Out: `Decision`, the steps to take, in the order of its fields;
`deletion_steps.py` takes them. The scheduler decides again after every step, until nothing is left to do immediately,
so a decision contains only what follows from its state alone.

Invariants, each with a test:
- a deletion is `pruned` only when every shard that it hit was read after its acceptance, every unwanted stage in
  training was asked to stop, the replicas confirmed a live set without the stages that it pruned, and so did every
  external server that follows the run;
- a shard has at most one purge at a time, and never while a stage of its former data may still be in training;
- a deletion is `purged` only when every shard that it concerns was purged after the deletion was pruned;
- a deletion is certified only when its shards have healed as far as the re-queue policy requires;
- a deletion never overtakes one that it waits for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields

from s3t_ray.ledger.rows.failure_rows import FailedPurge, FailedServing
from s3t_ray.ledger.values import DeletionRow, DeletionState
from s3t_ray.plan.schedule import Assignment
from s3t_ray.plan.stages import Stage
from s3t_ray.run.shard_view import ShardView
from s3t_ray.scheduler.policy.state import State, shards_hit, shards_to_purge
from s3t_ray.scheduler.requeue import healed


@dataclass(frozen=True)
class ShardPurge:
    """A purge of one shard, and the deletions and stages it covers."""

    shard: int
    requests: tuple[str, ...]
    """Requests that this purge counts for."""
    stages: tuple[str, ...]
    """Stages to erase that have no row in the ledger."""


@dataclass(frozen=True)
class Decision:
    """Steps to take, in this order; falsy if there is nothing to do immediately."""

    prune: frozenset[int] = frozenset()
    """Shards to prune and read again, because deletions hit them."""
    viewed: tuple[str, ...] = ()
    """Requests that hit these shards."""
    stop: tuple[str, ...] = ()
    """Stages in training to stop."""
    serve: Mapping[int, tuple[str, ...]] | None = None
    """The live set that the replicas must confirm now."""
    pruned: tuple[str, ...] = ()
    """Requests that are pruned."""
    purge: tuple[ShardPurge, ...] = ()
    """Purges to start."""
    purged: tuple[str, ...] = ()
    """Requests that are purged."""
    train: tuple[Assignment, ...] = ()
    """Stages to start: the re-queue."""
    certify: tuple[str, ...] = ()
    """Requests to certify, which restores them."""

    def __bool__(self) -> bool:
        return self.serve is not None or any(getattr(self, each.name) for each in fields(self) if each.name != "serve")


Placement = Callable[[State], tuple[Assignment, ...]]
"""Chooses the stages to start on free groups (`requeue.place`, or the equivalent `Offers.place`)."""


def decide(state: State, place: Placement) -> Decision:
    """The next steps. Calls `place` last, when the views are current."""
    stop = _to_stop(state)
    if hit := [row for row in state.in_state(DeletionState.ACCEPTED) if row.receipt.request_id not in state.viewed]:
        shards = frozenset(shard for row in hit for shard in shards_hit(row))
        return Decision(prune=shards, viewed=tuple(row.receipt.request_id for row in hit), stop=stop)
    serve = _to_serve(state)
    if stop or serve is not None:
        return Decision(stop=stop, serve=serve)
    if pruned := _in_turn(row for row in state.in_state(DeletionState.ACCEPTED) if _followed(state, row)):
        return Decision(pruned=pruned)
    purge, purged = _to_purge(state), _in_turn(row for row in state.in_state(DeletionState.PRUNED) if _done(state, row))
    if purge or purged:
        return Decision(purge=purge, purged=purged)
    return Decision(train=place(state), certify=_to_certify(state))


def _followed(state: State, row: DeletionRow) -> bool:
    """Whether every external server has confirmed a state after the deletion."""
    return state.followed_to is None or row.number <= state.followed_to


def _in_turn(deletions: Iterable[DeletionRow]) -> tuple[str, ...]:
    """The requests that can advance now: those that wait only for requests that advance before them."""
    moved: list[str] = []
    for row in deletions:
        if set(row.waits_for) <= set(moved):
            moved.append(row.receipt.request_id)
    return tuple(moved)


def _to_stop(state: State) -> tuple[str, ...]:
    """Stages that the ledger would refuse: no longer needed, or built on a stage that is out of service."""
    suspects = [stage for stage in state.training.values() if stage.shard in state.changed] if state.changed else []
    return tuple(
        stage.id
        for stage in suspects
        if stage.id not in state.stopping and not _counts(state.views[stage.shard], stage)
    )


def _counts(view: ShardView, stage: Stage) -> bool:
    return stage.id in view.plan.stages and (stage.parent is None or stage.parent in view.live)


def _to_serve(state: State) -> Mapping[int, tuple[str, ...]] | None:
    again = state.confirmed_in_part and FailedServing() not in state.waiting
    return state.serving if again or state.serving != state.confirmed else None


def _to_purge(state: State) -> tuple[ShardPurge, ...]:
    waiting: dict[int, list[str]] = defaultdict(list)
    for row in state.in_state(DeletionState.PRUNED):
        request = row.receipt.request_id
        for shard in shards_to_purge(row) - state.purged.get(request, frozenset()):
            waiting[shard].append(request)
    for shard in state.stale:  # from orders no longer in the config, damaged, or left by an earlier scheduler
        waiting.setdefault(shard, [])
    held = {stage.shard for name, stage in state.training.items() if name in state.stopping} if waiting else set()
    return tuple(
        ShardPurge(shard, tuple(requests), _to_erase(state, shard))
        for shard, requests in sorted(waiting.items())
        if shard not in state.purging and shard not in held and FailedPurge(shard) not in state.waiting
    )


def _to_erase(state: State, shard: int) -> tuple[str, ...]:
    left = state.unaccounted.get(shard, frozenset())
    return tuple(sorted(left - state.views[shard].plan.stages.keys() - state.training.keys()))


def _done(state: State, row: DeletionRow) -> bool:
    """Whether every shard of the deletion was purged after it was pruned."""
    return shards_to_purge(row) <= state.purged.get(row.receipt.request_id, frozenset())


def _to_certify(state: State) -> tuple[str, ...]:
    rows = [
        row
        for row in state.in_state(DeletionState.PURGED)
        if row.receipt.request_id not in state.postponed
        and all(healed(state, state.views[shard]) for shard in shards_hit(row))
    ]
    return _in_turn(rows)
