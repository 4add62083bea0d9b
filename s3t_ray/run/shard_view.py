"""The state of a shard in the ledger at one moment: what it requires, what it has, what is unclean.

In: an open run. Out: frozen views over pure plans. Reads only; never Ray or torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from s3t_ray.ledger.values import SliceState
from s3t_ray.plan.stages import ShardPlan
from s3t_ray.run.run import Run


@dataclass(frozen=True)
class ShardView:
    """What a shard needs and has, read from the ledger at one moment.

    Derived values are cached, because a scheduler reads all its views many times per second.
    """

    plan: ShardPlan
    live: frozenset[str]
    stale: frozenset[str]
    """Stages out of service whose bytes still exist."""
    slices: tuple[SliceState, ...]
    ever_complete: bool
    """Whether every sequence was once fully trained under the current orders."""

    def with_live(self, stage_ids: Iterable[str]) -> ShardView:
        """The view after the ledger has also accepted these stages."""
        return replace(self, live=self.live.union(stage_ids))

    @cached_property
    def unclean(self) -> frozenset[int]:
        """Slices whose file may still contain deleted rows, so nothing may train on them."""
        return frozenset(s.slice for s in self.slices if s.file is None or s.file_digest != s.digest)

    @cached_property
    def missing(self) -> frozenset[str]:
        """Wanted stages that are not live."""
        return frozenset(self.plan.stages) - self.live

    @cached_property
    def unpurged(self) -> frozenset[str]:
        """Stages that must wait for a purge: their slices may contain deleted rows, or their own old bytes exist."""
        unclean = self.unclean
        waiting = {s.id for s in self.plan.stages.values() if not unclean.isdisjoint(s.slices)} if unclean else set()
        return self.stale | waiting

    @cached_property
    def depths(self) -> tuple[int, ...]:
        return self.plan.depths(self.live)

    @cached_property
    def depth(self) -> int:
        """Depth of the deepest live model; 0: the shard is dead."""
        return max(self.depths, default=0)

    @cached_property
    def serving(self) -> tuple[str, ...]:
        """Stage ids of the deepest live model, top group first; empty: the shard is dead."""
        stage = self.plan.deepest(self.live)
        return stage.chain if stage else ()


class Views(dict[int, ShardView]):
    """The views of a run's shards, and which changed since the last call, so that a round can skip the others."""

    def __init__(self, views: Mapping[int, ShardView]) -> None:
        super().__init__(views)
        self._changed: dict[str, set[int]] = {}

    def __setitem__(self, shard: int, view: ShardView) -> None:
        super().__setitem__(shard, view)
        self.touch(shard)

    def put(self, views: Mapping[int, ShardView]) -> None:
        """Set several views."""
        for shard, view in views.items():
            self[shard] = view

    def touch(self, shard: int) -> None:
        """Mark the shard as changed."""
        for changed in self._changed.values():
            changed.add(shard)

    def take_changed(self, reader: str) -> set[int]:
        """The shards that changed since this reader's last call; all of them on the first call."""
        changed = self._changed.get(reader, set(self))
        self._changed[reader] = set()
        return changed


def view_shard(run: Run, shard: int) -> ShardView:
    """The shard's view from the ledger. Changes nothing."""
    slices = run.ledger.slices(shard)
    live, stale = run.ledger.standing(shard)
    plan = run.plan(shard, slices)
    return ShardView(plan, live, stale, slices, ever_complete=run.ledger.ever_trained(shard, plan.orders))
