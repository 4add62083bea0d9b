"""Placement: which stages to start now on the worker groups that are free, and when healing is due.

In: the shards' plans with what is published, the stages in training, the free groups. Out:
(group, stage) assignments. Pure, so that it is tested by the thousand against a slow, obvious
checker: no Ray, no clock (the caller passes seconds). `decide` looks at every shard; `Placer` gives
the same answers and looks again only at shards that changed, for runs of a thousand shards.

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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

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
    placer = Placer()
    for state in shards:
        placer.put(state, running, blocked)
    return placer.assign(free_groups)


class Placer:
    """`decide` for many calls: a heap of the shards' offers, each as good as its shard's last `put`."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ShardState, frozenset[str]]] = {}
        self._taken: dict[int, set[str]] = {}
        self._offers: dict[int, _Offer] = {}
        self._heap: list[_Offer] = []  # with offers that were replaced since, told by `_offers`

    def put(
        self, state: ShardState, running: Iterable[str] = frozenset(), blocked: frozenset[str] = frozenset()
    ) -> None:
        """A shard as it is now, in place of what was known of it. Ids of other shards do not matter.

        Call it whenever a stage of the shard was published, refused or pruned, or its healing became due.
        """
        shard = state.plan.shard
        self._known[shard] = (state, blocked)
        self._taken[shard] = {name for name in running if name in state.plan.stages}
        self._look(shard)

    def assign(self, free_groups: Sequence[int]) -> tuple[Assignment, ...]:
        """A stage for each of these groups, as far as there are any; they count as in training from now on."""
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
    """Depth of a sequence that has `depth` now, once what is in training is published."""
    while depth < len(chain) and (chain[depth] in taken or chain[depth] in have):
        depth += 1
    return depth


def _slices_to_beat(chain: tuple[str, ...], depth: int, soon_depth: int, blocked: frozenset[str]) -> int:
    """Work, in slices trained, until this sequence is deeper than `soon_depth`.

    Stage i trains on i slices. A sequence that never gets there (too short, or a blocked stage in
    its way) is worth more than any real amount of work.
    """
    if soon_depth >= len(chain) or not blocked.isdisjoint(chain[depth : soon_depth + 1]):
        return len(chain) * len(chain) + 1
    return sum(range(depth + 1, soon_depth + 2))
