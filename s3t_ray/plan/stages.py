"""Sequences, stages and the plan of a shard: which stages are wanted, as pure functions.

No Ray, no torch, no clock, no disk, so that it is tested by the thousand. Invariants, each with a
test: sequences that share a prefix share its stages; a stage's parent is wanted when it is; the
plan depends on nothing but its arguments; changing one slice's digest renames exactly the stages
at and after that slice's position.

Runs have millions of stages, so a plan keeps their names only, once each, and makes a `Stage` when
it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass

from s3t_ray.plan.identity import StageNames

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


class Stages(Mapping[str, Stage]):
    """The stages of a shard's plan by id, each made when it is looked up. In the order of the sequences."""

    def __init__(
        self, shard: int, orders: Sequence[tuple[int, ...]], chains: Sequence[tuple[str, ...]], places: dict[str, int]
    ) -> None:
        """`places`: of each id, the first sequence that has it times L, plus its position there."""
        self._shard = shard
        self._orders = orders
        self._chains = chains
        self._places = places

    def __getitem__(self, name: str) -> Stage:
        sequence, position = divmod(self._places[name], len(self._orders[0]))
        return Stage(name, self._shard, self._orders[sequence][: position + 1], self._chains[sequence][:position])

    def parent(self, name: str) -> str | None:
        """`self[name].parent`, without making the stage."""
        sequence, position = divmod(self._places[name], len(self._orders[0]))
        return self._chains[sequence][position - 1] if position else None

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def keys(self) -> KeysView[str]:
        return self._places.keys()


@dataclass(frozen=True)
class ShardPlan:
    """What one shard wants trained: its orders, and for each the ids of stages 1..L."""

    shard: int
    orders: tuple[tuple[int, ...], ...]
    chains: tuple[tuple[str, ...], ...]
    stages: Stages

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
    names = StageNames(recipe, shard, slice_digests)
    places: dict[str, int] = {}
    own: dict[str, str] = {}  # each id as one string, however many sequences have it
    chains: list[tuple[str, ...]] = []
    place = 0
    for order in orders:
        chain: list[str] = []
        parent: str | None = None
        for slice_index in order:
            name = names.of(parent, slice_index)
            parent = own.setdefault(name, name)
            places.setdefault(parent, place)
            chain.append(parent)
            place += 1
        chains.append(tuple(chain))
    kept = tuple(tuple(order) for order in orders)
    return ShardPlan(shard, kept, tuple(chains), Stages(shard, kept, chains, places))


def compare(wanted: ShardPlan, have: Iterable[str]) -> Delta:
    """Stale, missing and ready stages of one shard (`have`: its accepted stage ids)."""
    published = frozenset(have)
    names = frozenset(wanted.stages)
    missing = names - published
    stages = wanted.stages
    ready = [stages[name] for name in missing if (parent := stages.parent(name)) is None or parent in published]
    ready.sort(key=lambda stage: (stage.depth, stage.slices))
    return Delta(published - names, missing, tuple(ready))


def _prefix_length(chain: tuple[str, ...], published: set[str] | frozenset[str]) -> int:
    for length, name in enumerate(chain):
        if name not in published:
            return length
    return len(chain)
