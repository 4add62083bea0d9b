"""Sequences, stages and the plan of a shard: which stages are wanted, as pure functions.

No Ray, no torch, no clock, no disk, so that it is tested by the thousand. Invariants, each with a
test: sequences that share a prefix share its stages; a stage's parent is wanted when it is; the
plan depends on nothing but its arguments; changing one slice's digest renames exactly the stages
at and after that slice's position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from s3t_ray.plan.identity import stage_id

HOLDOUT_SHARD = -1
"""Held-out records belong to no shard; they are kept as slice 0 of this one."""


@dataclass(frozen=True)
class Stage:
    """One node of a shard's plan. Its depth is the number of slices it has learned."""

    id: str
    shard: int
    slices: tuple[int, ...]  # in the order they were added; the last is the one this stage adds
    ancestors: tuple[str, ...]  # ids of stages 1..depth-1

    @property
    def depth(self) -> int:
        return len(self.slices)

    @property
    def parent(self) -> str | None:
        return self.ancestors[-1] if self.ancestors else None

    @property
    def chain(self) -> tuple[str, ...]:
        """Ids of stages 1..depth: the adapters that together are the model at this depth."""
        return (*self.ancestors, self.id)


@dataclass(frozen=True)
class ShardPlan:
    """What one shard wants trained: its orders, and for each the ids of stages 1..L."""

    shard: int
    orders: tuple[tuple[int, ...], ...]
    chains: tuple[tuple[str, ...], ...]
    stages: Mapping[str, Stage]

    def depths(self, have: Iterable[str]) -> tuple[int, ...]:
        """Live depth of each sequence: how many stages from the top are in `have` without a gap."""
        published = have if isinstance(have, (set, frozenset)) else set(have)
        return tuple(_prefix_length(chain, published) for chain in self.chains)

    def deepest(self, have: Iterable[str]) -> Stage | None:
        """The deepest live stage; among equals that of the first sequence. None: the shard is dead."""
        depths = self.depths(have)
        depth = max(depths, default=0)
        return self.stages[self.chains[depths.index(depth)][depth - 1]] if depth else None


@dataclass(frozen=True)
class Delta:
    """What separates what is wanted from what is there."""

    stale: frozenset[str]  # prune, purge
    missing: frozenset[str]
    ready: tuple[Stage, ...]  # missing, with the parent there; shallowest first


def plan_shard(
    shard: int, orders: Sequence[tuple[int, ...]], slice_digests: Mapping[int, str], recipe: str
) -> ShardPlan:
    """The plan of `shard`: one chain of stages an order, prefixes shared."""
    stages: dict[str, Stage] = {}
    chains: list[tuple[str, ...]] = []
    for order in orders:
        chain: tuple[str, ...] = ()
        for position, slice_index in enumerate(order, start=1):
            parent = chain[-1] if chain else None
            name = stage_id(recipe, parent, shard, slice_index, slice_digests[slice_index])
            stages.setdefault(name, Stage(name, shard, tuple(order[:position]), chain))
            chain = (*chain, name)
        chains.append(chain)
    return ShardPlan(shard, tuple(tuple(order) for order in orders), tuple(chains), stages)


def compare(wanted: ShardPlan, have: Iterable[str]) -> Delta:
    """Stale, missing and ready stages of one shard (`have`: its accepted stage ids)."""
    published = frozenset(have)
    names = frozenset(wanted.stages)
    missing = names - published
    ready = [
        stage
        for stage in wanted.stages.values()
        if stage.id in missing and (stage.parent is None or stage.parent in published)
    ]
    ready.sort(key=lambda stage: (stage.depth, stage.slices))
    return Delta(published - names, missing, tuple(ready))


def _prefix_length(chain: tuple[str, ...], published: set[str] | frozenset[str]) -> int:
    for length, name in enumerate(chain):
        if name not in published:
            return length
    return len(chain)
