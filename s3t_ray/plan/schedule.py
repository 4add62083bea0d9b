"""Placement: which stages to start now on the free worker groups, and when healing is due.

In: the shards' plans and published stages, the stages in training, the free groups. Out: (group,
stage) assignments. Pure: no Ray and no clock (the caller passes seconds), so tests can compare
thousands of random cases with a slow, obvious checker. `decide` examines every shard. `Placer` gives
the same answers but only examines shards that changed, for runs with a thousand shards.

Invariants, each with a test:
- a stage is assigned only if it is wanted, missing, ready, not in training and not blocked;
- no stage or group is assigned twice, and no group stays free while a stage is ready;
- the shard with the shallowest deepest model, counting stages in training, comes first; so a dead
  shard without any stage in training precedes all others;
- within a shard, the sequence that will soonest give it a deeper model comes first, then the others,
  deepest first;
- a shard never trains more than its plan's sequences, because every stage comes from the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from s3t_ray.config.schema import Requeue
from s3t_ray.plan.stages import ShardPlan, Stage


@dataclass(frozen=True)
class ShardState:
    """The state of one shard."""

    plan: ShardPlan
    have: frozenset[str]  # ids of accepted stages
    healing: bool  # whether the re-queue policy allows this shard to train now (`healing_due`)


@dataclass(frozen=True)
class Assignment:
    """Train `stage` on worker group `group`."""

    group: int
    stage: Stage


@dataclass(frozen=True, order=True)
class _Offer:
    """The best stage of a shard to start next. The smallest offer wins."""

    depth: int  # depth of the shard's deepest model once its stages in training are published
    training: int  # stages in training in this shard, so that equal shards share the groups
    shard: int
    stage: str


def decide(
    shards: Sequence[ShardState],
    running: frozenset[str],
    free_groups: Sequence[int],
    blocked: frozenset[str] = frozenset(),
) -> tuple[Assignment, ...]:
    """The stages to start now. `running`: ids of stages in training; `blocked`: ids of failed stages not to start."""
    placer = Placer()
    for state in shards:
        placer.put(state, running, blocked)
    return placer.assign(free_groups)


class Placer:
    """An incremental `decide`: a heap of offers, each based on the last `put` of its shard."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ShardState, frozenset[str]]] = {}
        self._taken: dict[int, set[str]] = {}
        self._offers: dict[int, _Offer] = {}
        self._heap: list[_Offer] = []  # may contain outdated offers, which `_offers` identifies

    def put(
        self, state: ShardState, running: Iterable[str] = frozenset(), blocked: frozenset[str] = frozenset()
    ) -> None:
        """Set the current state of a shard. Ids that belong to other shards are ignored.

        Call it whenever a stage of the shard is published, refused or pruned, or its healing becomes due.
        """
        shard = state.plan.shard
        self._known[shard] = (state, blocked)
        self._taken[shard] = {name for name in running if name in state.plan.stages}
        self._look(shard)

    def assign(self, free_groups: Sequence[int]) -> tuple[Assignment, ...]:
        """Assign stages to these groups as long as there are any. They count as in training from now on."""
        assignments: list[Assignment] = []
        for group in free_groups:
            best = self._best()
            if best is None:
                break
            state, _ = self._known[best.shard]
            assignments.append(Assignment(group, state.plan.stages[best.stage]))
            self._taken[best.shard].add(best.stage)
            self._look(best.shard)
        return tuple(assignments)

    def _best(self) -> _Offer | None:
        while self._heap and self._offers.get(self._heap[0].shard) is not self._heap[0]:
            heappop(self._heap)
        return self._heap[0] if self._heap else None

    def _look(self, shard: int) -> None:
        state, blocked = self._known[shard]
        offer = _offer(state, self._taken[shard], blocked) if state.healing else None
        if offer is None:
            self._offers.pop(shard, None)
        else:
            self._offers[shard] = offer
            heappush(self._heap, offer)
        if len(self._heap) > 2 * len(self._offers) + 64:
            self._heap = list(self._offers.values())
            heapify(self._heap)


def healing_due(
    policy: Requeue, shard_depth: int, ever_complete: bool, seconds_since_first_unhealed: float | None
) -> bool:
    """Whether a shard may train its missing stages now.

    `ever_complete`: whether the shard was ever fully trained; the first training is always allowed.
    `seconds_since_first_unhealed`: the age of the oldest unhealed deletion, in seconds; None if there
    is none, and then missing stages (after a raised budget) need not wait for a window.
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
    plan, have = state.plan, state.have
    depths = plan.depths(have)
    soon_depth = max(
        (_soon(chain, depth, have, taken) for chain, depth in zip(plan.chains, depths, strict=True)), default=0
    )
    best: tuple[int, int, int, str] | None = None
    for index, (chain, depth) in enumerate(zip(plan.chains, depths, strict=True)):
        if depth == len(chain) or chain[depth] in taken or chain[depth] in blocked:
            continue
        key = (_slices_to_beat(chain, depth, soon_depth, blocked), -depth, index, chain[depth])
        best = key if best is None else min(best, key)
    return None if best is None else _Offer(soon_depth, len(taken), plan.shard, best[-1])


def _soon(chain: tuple[str, ...], depth: int, have: frozenset[str], taken: set[str]) -> int:
    """The depth of a sequence that has `depth` now, once its stages in training are published."""
    while depth < len(chain) and (chain[depth] in taken or chain[depth] in have):
        depth += 1
    return depth


def _slices_to_beat(chain: tuple[str, ...], depth: int, soon_depth: int, blocked: frozenset[str]) -> int:
    """The work, in slices to train on, until this sequence is deeper than `soon_depth`.

    Stage i trains on i slices. For a sequence that cannot get there (too short, or a blocked stage in
    the way), returns more than any real amount of work.
    """
    if soon_depth >= len(chain) or not blocked.isdisjoint(chain[depth : soon_depth + 1]):
        return len(chain) * len(chain) + 1
    return sum(range(depth + 1, soon_depth + 2))
