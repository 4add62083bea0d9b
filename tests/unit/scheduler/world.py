"""A run as plain sets, slow and obvious: what the ledger, the storage, the worker groups and the replicas would say.

No part of the scheduler decides anything here. A slice's data has a version, one more with every deletion that hits
it; a stage has learned versions. So "saw the deleted record" is a comparison of two numbers, and each promise is
checked where a step is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from s3t_ray.config.schema import Requeue
from s3t_ray.ledger.rows.failure_rows import FailedPurge, FailedServing, FailedStage
from s3t_ray.ledger.values import DeletionRow, DeletionState, DeletionTimes, Hit, Receipt, SliceState
from s3t_ray.plan.stages import HOLDOUT_SHARD, Stage, plan_shard
from s3t_ray.run.shard_view import ShardView
from s3t_ray.scheduler.bookkeeping import Bookkeeping
from s3t_ray.scheduler.policy.decide import Decision

NEXT = {
    DeletionState.ACCEPTED: DeletionState.PRUNED,
    DeletionState.PRUNED: DeletionState.PURGED,
    DeletionState.PURGED: DeletionState.RESTORED,
}


@dataclass
class Deletion:
    """What the ledger has of a deletion. `versions`: of the slices that it hit, from which on the record is gone."""

    request: str
    versions: dict[tuple[int, int], int]
    links: tuple[str, ...]
    number: int
    """Of its place in the history."""
    state: DeletionState = DeletionState.ACCEPTED

    def saw(self, stage: Stage, learned: Mapping[int, int]) -> bool:
        """Whether a stage that learned these versions saw a record of this deletion."""
        return any(
            shard == stage.shard and index in learned and learned[index] < version
            for (shard, index), version in self.versions.items()
        )


@dataclass
class World:
    orders: Mapping[int, Sequence[tuple[int, ...]]]
    policy: Requeue
    groups: int
    now: float = 0.0
    versions: dict[tuple[int, int], int] = field(default_factory=dict)
    files: dict[tuple[int, int], int] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)  # every stage that was ever begun
    learned: dict[str, dict[int, int]] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)  # stages with bytes in the storage
    deletions: list[Deletion] = field(default_factory=list)
    training: dict[int, str] = field(default_factory=dict)  # group -> stage
    asked: set[str] = field(default_factory=set)
    purging: dict[int, tuple[str, ...]] = field(default_factory=dict)
    confirmed: dict[int, tuple[str, ...]] = field(default_factory=dict)
    behind: bool = False
    followed: int | None = None
    """The number up to which a server outside, that follows the run, has confirmed; None: there is none."""
    busy_ledger: bool = False
    ever_complete: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        for shard, orders in self.orders.items():
            for index in range(len(orders[0]) if orders else 1):
                self.versions[shard, index] = self.files[shard, index] = 0

    # What can be read

    def view(self, shard: int) -> ShardView:
        slices = sorted(index for at, index in self.versions if at == shard)
        digests = {index: f"{shard}.{index}.{self.versions[shard, index]}" for index in slices}
        plan = plan_shard(shard, self.orders[shard], digests, "recipe")
        states = tuple(
            SliceState(shard, index, 1, digests[index], "file", "sha", f"{shard}.{index}.{self.files[shard, index]}")
            for index in slices
        )
        mine = {name for name, stage in self.stages.items() if stage.shard == shard}
        live = frozenset(self.live & mine)
        if live >= plan.stages.keys():
            self.ever_complete.add(shard)
        return ShardView(plan, live, frozenset(self.stale & mine), states, shard in self.ever_complete)

    def views(self) -> dict[int, ShardView]:
        return {shard: self.view(shard) for shard in self.orders}

    def rows(self) -> dict[DeletionState, tuple[DeletionRow, ...]]:
        return {state: tuple(self._row(each) for each in self.deletions if each.state is state) for state in NEXT}

    def _row(self, deletion: Deletion) -> DeletionRow:
        hits = tuple(Hit(shard, index, 1) for shard, index in sorted(deletion.versions))
        receipt = Receipt(deletion.request, "now", len(hits), 0, 0, hits, ())
        waits = tuple(name for name in deletion.links if self._of(name).state.rank <= deletion.state.rank)
        return DeletionRow(receipt, deletion.state, DeletionTimes("now", None, None, None), waits, deletion.number)

    def _of(self, request: str) -> Deletion:
        (found,) = [each for each in self.deletions if each.request == request]
        return found

    def free(self) -> tuple[int, ...]:
        return tuple(group for group in range(self.groups) if group not in self.training)

    # What happens by itself

    def delete(self, places: Sequence[tuple[int, int]], links: Sequence[str]) -> None:
        """A deletion is accepted: the ledger takes what saw the records out of service in the same transaction."""
        for place in places:
            self.versions[place] += 1
        request = f"request {len(self.deletions)}"
        made = Deletion(
            request, {place: self.versions[place] for place in places}, tuple(links), len(self.deletions) + 1
        )
        self.deletions.append(made)
        saw = {name for name in self.live if made.saw(self.stages[name], self.learned[name])}
        self.live -= saw
        self.stale |= saw

    def damage(self, name: str) -> None:
        """A live stage and those built on it go out of service; they are wanted as ever."""
        gone = {each for each in self.live if name in self.stages[each].chain}
        self.live -= gone
        self.stale |= gone

    # What the scheduler does: each step, with what was promised about it

    def take(self, decision: Decision, books: Bookkeeping) -> None:
        if decision.prune:
            books.viewed(decision.viewed, {shard: self.view(shard) for shard in decision.prune})
        for name in decision.stop:
            assert name in self.training.values() and name not in self.asked
            self.asked.add(name)
            books.asked_to_stop(name)
        if decision.serve is not None:
            self.confirmed = dict(decision.serve)
            books.confirmed(decision.serve, in_part=self.behind)
            if self.behind:
                books.retries.failed(FailedServing(), lost=True)
            else:
                books.retries.succeeded(FailedServing())
        for request in decision.pruned:
            self._prune(self._of(request))
        for purge in decision.purge:
            self._begin_purge(purge.shard, purge.stages)
            books.purge_began(purge)
        for request in decision.purged:
            self._purge(self._of(request))
        for assignment in decision.train:
            self._train(assignment.group, assignment.stage, books)
            books.started(assignment.stage, {})
        for request in decision.certify:
            if self.busy_ledger:
                books.postponed(request)
            else:
                self._certify(self._of(request))
        books.look(self.rows())

    def _move(self, deletion: Deletion) -> None:
        deletion.state = NEXT[deletion.state]
        assert all(self._of(name).state.rank >= deletion.state.rank for name in deletion.links), "overtaken"

    def _prune(self, deletion: Deletion) -> None:
        assert deletion.state is DeletionState.ACCEPTED
        assert self.followed is None or deletion.number <= self.followed, "still in service outside"
        served = [name for chain in self.confirmed.values() for name in chain]
        assert not any(deletion.saw(self.stages[name], self.learned[name]) for name in served), "still in service"
        for name in self.training.values():
            assert name in self.asked or not deletion.saw(self.stages[name], self.learned[name]), "still in training"
        self._move(deletion)

    def _begin_purge(self, shard: int, stages: tuple[str, ...]) -> None:
        assert shard not in self.purging, "two purges of one shard"
        wanted = self.view(shard).plan.stages
        mine = [name for name in self.training.values() if self.stages[name].shard == shard]
        assert all(name in wanted for name in mine), "a group still writes what is being erased"
        assert not set(stages) & (set(mine) | wanted.keys()), "what is wanted is not erased"
        assert not set(stages) & (self.live | self.stale), "the ledger accounts for these"
        self.purging[shard] = stages

    def end_purge(self, shard: int, books: Bookkeeping, works: bool) -> None:
        stages = self.purging.pop(shard)
        if not works:
            books.purge_failed(shard)
            books.retries.failed(FailedPurge(shard), lost=True)
            return
        gone = {name for name in self.stale if self.stages[name].shard == shard}
        self.stale -= gone
        self.stored -= gone | set(stages)
        for place in self.files:
            if place[0] == shard:
                self.files[place] = self.versions[place]
        books.purge_ended(shard, self.view(shard))
        books.retries.succeeded(FailedPurge(shard))

    def _purge(self, deletion: Deletion) -> None:
        assert deletion.state is DeletionState.PRUNED
        left = [name for name in self.stored if deletion.saw(self.stages[name], self.learned[name])]
        assert left == [], "bytes of what saw the record are left"
        assert all(self.files[place] >= version for place, version in deletion.versions.items()), "its rows are left"
        self._move(deletion)

    def _train(self, group: int, stage: Stage, books: Bookkeeping) -> None:
        view = self.view(stage.shard)
        assert group in self.free() and stage.id not in self.training.values()
        assert stage.id in view.plan.stages and stage.id not in self.live
        assert stage.parent is None or stage.parent in self.live
        assert stage.id not in self.stale, "its old bytes are being purged"
        assert all(self.files[stage.shard, index] == self.versions[stage.shard, index] for index in stage.slices)
        assert FailedStage(stage.id) not in books.retries.waiting
        self.training[group] = stage.id
        self.stages[stage.id] = stage
        self.learned[stage.id] = {index: self.versions[stage.shard, index] for index in stage.slices}
        self.stored.add(stage.id)

    def end_stage(self, group: int, books: Bookkeeping, how: str) -> None:
        """`how`: done, failed, or lost; one that was asked to stop, and is done, may have stopped or published."""
        name = self.training.pop(group)
        stage, _ = books.ended(name)
        asked = name in self.asked
        self.asked.discard(name)
        wanted = name in self.view(stage.shard).plan.stages and (stage.parent is None or stage.parent in self.live)
        if how == "done" and wanted and not asked:
            self.live.add(name)
            self.view(stage.shard)  # which notes that the shard is complete
            books.accepted([stage])
            books.retries.succeeded(FailedStage(name))
        elif how == "done" or name not in books.views[stage.shard].plan.stages:
            self.stored.discard(name)
        else:
            books.retries.failed(FailedStage(name), lost=how == "lost")

    def _certify(self, deletion: Deletion) -> None:
        assert deletion.state is DeletionState.PURGED
        for shard in {shard for shard, _ in deletion.versions} - {HOLDOUT_SHARD}:
            view = self.view(shard)
            whole = view.plan.stages.keys() <= self.live
            lazy = self.policy.policy == "lazy" and view.ever_complete and view.depth >= self.policy.floor
            assert whole or lazy, "not healed as far as the policy asks"
        self._move(deletion)
