"""Placement: which stages to start now on the worker groups that are free, and when healing is due.

In: the shards' plans with what is published, the stages in training, the free groups. Out:
(group, stage) assignments. Pure, so that it is tested by the thousand against a slow, obvious
checker: no Ray, no clock (the caller passes seconds), no memory between calls.

Invariants, each with a test:
- a stage is assigned only when it is wanted, missing, ready, not in training and not blocked;
- no stage twice, no group twice, and no group stays free while a stage is ready;
- the shard that comes first is the one whose deepest model, counting what is in training, is the
  shallowest: so a dead shard nobody works on precedes all others;
- within a shard comes first the sequence that soonest gives it a deeper model than it has or is
  getting, then the rest, deepest first;
- a shard never trains more than its plan's sequences, since a stage comes only from the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s3t_ray.config.schema import Requeue
from s3t_ray.plan.stages import ShardPlan, Stage


@dataclass(frozen=True)
class ShardState:
    """One shard as the scheduler sees it."""

    plan: ShardPlan
    have: frozenset[str]  # ids of accepted stages
    healing: bool  # whether the re-queue policy lets this shard train now (`healing_due`)


@dataclass(frozen=True)
class Assignment:
    """Train `stage` on worker group `group`."""

    group: int
    stage: Stage


@dataclass(frozen=True, order=True)
class _Offer:
    """A shard's best stage to start next; the smallest offer wins."""

    depth: int  # of the shard's deepest model once what is in training is published
    training: int  # stages in training in this shard: equals share the groups
    shard: int
    stage: str


def decide(
    shards: Sequence[ShardState],
    running: frozenset[str],
    free_groups: Sequence[int],
    blocked: frozenset[str] = frozenset(),
) -> tuple[Assignment, ...]:
    """What to start now. `running`: stage ids in training; `blocked`: ids not to start (they failed)."""
    taken = set(running)
    states = {state.plan.shard: state for state in shards}
    offers = {shard: _offer(state, taken, blocked) for shard, state in states.items() if state.healing}
    assignments: list[Assignment] = []
    for group in free_groups:
        best = min((offer for offer in offers.values() if offer is not None), default=None)
        if best is None:
            break
        assignments.append(Assignment(group, states[best.shard].plan.stages[best.stage]))
        taken.add(best.stage)
        offers[best.shard] = _offer(states[best.shard], taken, blocked)
    return tuple(assignments)


def healing_due(
    policy: Requeue, shard_depth: int, ever_complete: bool, seconds_since_first_unhealed: float | None
) -> bool:
    """Whether a shard may train now what it misses.

    `ever_complete`: whether the shard was once fully trained; the first training is always wanted.
    `seconds_since_first_unhealed`: age of the oldest deletion not yet healed, in seconds; None when
    no deletion waits, and then what is missing (a raised budget) need not wait for a window.
    """
    if not ever_complete:
        return True
    match policy.policy:
        case "eager":
            return True
        case "lazy":
            return shard_depth < policy.floor
        case "batch":
            return seconds_since_first_unhealed is None or seconds_since_first_unhealed >= policy.window_seconds


def _offer(state: ShardState, taken: set[str], blocked: frozenset[str]) -> _Offer | None:
    plan = state.plan
    soon_depth = max(plan.depths(state.have | taken), default=0)
    best: tuple[int, int, int, str] | None = None
    for index, (chain, depth) in enumerate(zip(plan.chains, plan.depths(state.have), strict=True)):
        if depth == len(chain) or chain[depth] in taken or chain[depth] in blocked:
            continue
        key = (_slices_to_beat(chain, depth, soon_depth, blocked), -depth, index, chain[depth])
        best = key if best is None else min(best, key)
    if best is None:
        return None
    training = sum(stage in taken for stage in plan.stages)
    return _Offer(soon_depth, training, plan.shard, best[-1])


def _slices_to_beat(chain: tuple[str, ...], depth: int, soon_depth: int, blocked: frozenset[str]) -> int:
    """Work, in slices trained, until this sequence is deeper than `soon_depth`.

    Stage i trains on i slices. A sequence that never gets there (too short, or a blocked stage in
    its way) is worth more than any real amount of work.
    """
    if soon_depth >= len(chain) or not blocked.isdisjoint(chain[depth : soon_depth + 1]):
        return len(chain) * len(chain) + 1
    return sum(range(depth + 1, soon_depth + 2))
