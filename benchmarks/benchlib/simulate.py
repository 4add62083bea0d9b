"""Simulates a run under a stream of deletions with discrete events: depth served over time, cost of healing.

In: a `Scenario`. Out: a `Course`. Pure and deterministic; time is simulated, in seconds. It plans and places with the
scheduler's own functions (`plan_shard`, `Placer`, `healing_due`), so it also shows the effect of their policies.
Pruning and purging take no time here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import inf, ulp
from typing import Literal

import numpy as np

from s3t_ray.config.schema import Requeue
from s3t_ray.plan.schedule import Placer, ShardState, healing_due
from s3t_ray.plan.stages import ShardPlan, Stage, plan_shard

Orders = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Deletion:
    """One deletion request that hits one slice."""

    at_seconds: float
    shard: int
    slice: int


@dataclass(frozen=True)
class Scenario:
    """What happens to a run between 0 and `until_seconds`."""

    orders_by_shard: tuple[Orders, ...]
    stage_seconds: tuple[float, ...]  # training time of a stage of depth 1..L on one worker group
    groups: int
    policy: Requeue | None  # None: no healing
    deletions: tuple[Deletion, ...]  # by time
    until_seconds: float
    start: Literal["trained", "empty"] = "trained"


@dataclass(frozen=True)
class DepthChange:
    """From this time on, the shard's deepest model has this depth."""

    at_seconds: float
    shard: int
    depth: int


@dataclass(frozen=True)
class Course:
    """The outcome of a scenario."""

    shards: int
    until_seconds: float
    changes: tuple[DepthChange, ...]  # by time, starting with one per shard at 0
    deletions: int  # before the end
    stages_trained: int
    stages_stopped: int  # whose data was deleted during training
    busy_seconds: float  # of worker groups, stopped stages included
    deletions_until_dead: int | None  # until every shard was dead at the same time; None: never

    @property
    def busy_seconds_per_deletion(self) -> float:
        """Worker-group seconds per deletion (with start: empty, this includes the first training)."""
        return self.busy_seconds / self.deletions if self.deletions else 0.0

    @property
    def mean_depth(self) -> float:
        """Depth of a shard's deepest model, averaged over time and shards."""
        return sum(depths * seconds for depths, _, seconds in self._spans()) / (self.shards * self.until_seconds)

    @property
    def dead_shard_share(self) -> float:
        """Share of shard-time in which a shard serves nothing."""
        return sum(dead * seconds for _, dead, seconds in self._spans()) / (self.shards * self.until_seconds)

    @property
    def dead_share(self) -> float:
        """Share of time in which no shard serves anything."""
        return sum(seconds for _, dead, seconds in self._spans() if dead == self.shards) / self.until_seconds

    def _spans(self) -> list[tuple[int, int, float]]:
        """(sum of depths, dead shards, seconds) between changes."""
        depths = [0] * self.shards
        spans = []
        ends = [change.at_seconds for change in self.changes[1:]] + [self.until_seconds]
        for change, end in zip(self.changes, ends, strict=True):
            depths[change.shard] = change.depth
            spans.append((sum(depths), depths.count(0), end - change.at_seconds))
        return spans


def uniform_deletions(
    shards: int, slices: int, seconds_between: float, until_seconds: float, seed: int
) -> tuple[Deletion, ...]:
    """Deletions at random times (Poisson), each in a uniformly chosen slice."""
    random = np.random.default_rng(seed)
    found: list[Deletion] = []
    now = random.exponential(seconds_between)
    while now < until_seconds:
        found.append(Deletion(float(now), int(random.integers(shards)), int(random.integers(slices))))
        now += random.exponential(seconds_between)
    return tuple(found)


def sisa(scenario: Scenario) -> Scenario:
    """The same deletions under SISA with slices: one sequence per shard."""
    return replace(scenario, orders_by_shard=tuple(orders[:1] for orders in scenario.orders_by_shard))


def sisa_without_slices(scenario: Scenario) -> Scenario:
    """The same deletions under SISA without slices: a shard is one stage on all its data."""
    return replace(
        scenario,
        orders_by_shard=(((0,),),) * len(scenario.orders_by_shard),
        stage_seconds=scenario.stage_seconds[-1:],
        deletions=tuple(replace(deletion, slice=0) for deletion in scenario.deletions),
    )


def simulate(scenario: Scenario) -> Course:
    """Run the scenario from start to end."""
    return _Simulation(scenario).play()


@dataclass
class _Shard:
    plan: ShardPlan
    have: set[str]
    deleted: list[int]  # deletions so far by slice, in place of the slice's digest
    ever_complete: bool
    unhealed_since: float | None = None

    @property
    def depth(self) -> int:
        return max(self.plan.depths(self.have), default=0)


@dataclass(frozen=True)
class _Training:
    stage: Stage
    began: float
    number: int  # distinguishes the finish event of a stopped training from its successor's


@dataclass(order=True, frozen=True)
class _Event:
    at: float
    number: int
    deletion: Deletion | None = field(compare=False, default=None)
    group: int | None = field(compare=False, default=None)  # the group that finishes
    shard: int | None = field(compare=False, default=None)  # the shard whose window ends


class _Simulation:
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._shards = [self._fresh(shard, orders) for shard, orders in enumerate(scenario.orders_by_shard)]
        self._training: dict[int, _Training] = {}
        self._events = [_Event(d.at_seconds, n, deletion=d) for n, d in enumerate(scenario.deletions)]
        heapify(self._events)
        self._number = len(self._events)
        self._changes = [DepthChange(0.0, index, shard.depth) for index, shard in enumerate(self._shards)]
        self._deletions = self._trained = self._stopped = 0
        self._busy = 0.0
        self._dead_after: int | None = None
        self._alive = sum(shard.depth > 0 for shard in self._shards)
        self._placer = Placer()
        self._free = list(range(scenario.groups))  # a heap
        self._running: dict[int, set[str]] = {shard: set() for shard in range(len(self._shards))}

    def play(self) -> Course:
        end = self._scenario.until_seconds
        self._place(0.0, range(len(self._shards)))
        while self._events and self._events[0].at < end:
            event = heappop(self._events)
            self._place(event.at, self._happen(event))
        self._busy += sum(end - training.began for training in self._training.values())
        return Course(
            shards=len(self._shards),
            until_seconds=end,
            changes=tuple(self._changes),
            deletions=self._deletions,
            stages_trained=self._trained,
            stages_stopped=self._stopped,
            busy_seconds=self._busy,
            deletions_until_dead=self._dead_after,
        )

    def _happen(self, event: _Event) -> tuple[int, ...]:
        """Apply the event. Returns the shards that may have new work."""
        if event.deletion is not None:
            self._delete(event.at, event.deletion)
            return (event.deletion.shard,)
        if event.group is not None:
            training = self._training.get(event.group)
            if training is None or training.number != event.number:
                return ()  # already stopped
            self._finish(event.at, event.group, training)
            return (training.stage.shard,)
        return () if event.shard is None else (event.shard,)

    def _fresh(self, shard: int, orders: Orders) -> _Shard:
        deleted = [0] * len(orders[0])
        plan = _plan(shard, orders, deleted)
        trained = self._scenario.start == "trained"
        return _Shard(plan, set(plan.stages) if trained else set(), deleted, ever_complete=trained)

    def _delete(self, now: float, deletion: Deletion) -> None:
        shard = self._shards[deletion.shard]
        before = shard.depth
        self._deletions += 1
        shard.deleted[deletion.slice] += 1
        shard.plan = _plan(deletion.shard, shard.plan.orders, shard.deleted)
        shard.have &= shard.plan.stages.keys()
        if self._running[deletion.shard] - shard.plan.stages.keys():
            for group, training in list(self._training.items()):
                if training.stage.shard == deletion.shard and training.stage.id not in shard.plan.stages:
                    self._leave(now, group, training)
                    self._stopped += 1
        if shard.unhealed_since is None:
            shard.unhealed_since = now
            if self._scenario.policy is not None:
                # One ulp late, so that the rounded difference is not below the window.
                due = now + self._scenario.policy.window_seconds
                self._push(due + ulp(due), shard=deletion.shard)
        self._note(now, deletion.shard, before)
        if self._dead_after is None and not self._alive:
            self._dead_after = self._deletions

    def _finish(self, now: float, group: int, training: _Training) -> None:
        self._leave(now, group, training)
        shard = self._shards[training.stage.shard]
        before = shard.depth
        shard.have.add(training.stage.id)
        self._trained += 1
        if len(shard.have) == len(shard.plan.stages):
            shard.ever_complete, shard.unhealed_since = True, None
        self._note(now, training.stage.shard, before)

    def _leave(self, now: float, group: int, training: _Training) -> None:
        """Free the group."""
        del self._training[group]
        self._running[training.stage.shard].discard(training.stage.id)
        self._busy += now - training.began
        heappush(self._free, group)

    def _place(self, now: float, changed: Iterable[int]) -> None:
        for index in changed:
            shard = self._shards[index]
            state = ShardState(shard.plan, frozenset(shard.have), self._heals(shard, now))
            self._placer.put(state, self._running[index])
        for assignment in self._placer.assign(sorted(self._free)):
            heappop(self._free)
            stage = assignment.stage
            number = self._push(now + self._scenario.stage_seconds[stage.depth - 1], assignment.group)
            self._training[assignment.group] = _Training(stage, now, number)
            self._running[stage.shard].add(stage.id)

    def _heals(self, shard: _Shard, now: float) -> bool:
        if self._scenario.policy is None:
            return not shard.ever_complete and shard.unhealed_since is None
        waited = None if shard.unhealed_since is None else now - shard.unhealed_since
        return healing_due(self._scenario.policy, shard.depth, shard.ever_complete, waited)

    def _note(self, now: float, index: int, before: int) -> None:
        depth = self._shards[index].depth
        if depth != before:
            self._alive += (depth > 0) - (before > 0)
            self._changes.append(DepthChange(now, index, depth))

    def _push(self, at: float, group: int | None = None, shard: int | None = None) -> int:
        self._number += 1
        if at < inf:
            heappush(self._events, _Event(at, self._number, group=group, shard=shard))
        return self._number


def _plan(shard: int, orders: Sequence[tuple[int, ...]], deleted: Sequence[int]) -> ShardPlan:
    digests = {s: str(count) for s, count in enumerate(deleted)}
    return plan_shard(shard, orders, digests, "simulated")
