"""The sequences and stages of a shard's plan: which stages are wanted, as pure functions.

Invariants, each with a test: sequences that share a prefix share its stages; the parent of a wanted
stage is wanted; the plan depends only on its arguments; changing one slice's digest renames exactly
the stages at and after that slice's position.

Runs can have millions of stages, so a plan keeps only one copy of each id and creates a `Stage` on
request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass

from s3t_ray.plan.identity import StageNames

HOLDOUT_SHARD = -1
"""The pseudo-shard whose slice 0 holds the held-out records."""


@dataclass(frozen=True)
class Stage:
    """One node of a shard's plan. Its depth is the number of slices that it trains on."""

    id: str
    shard: int
    slices: tuple[int, ...]  # in the order they were added; this stage adds the last one
    ancestors: tuple[str, ...]  # ids of stages 1..depth-1

    @property
    def depth(self) -> int:
        return len(self.slices)

    @property
    def parent(self) -> str | None:
        return self.ancestors[-1] if self.ancestors else None

    @property
    def chain(self) -> tuple[str, ...]:
        """The ids of stages 1..depth, whose adapters together form the model at this depth."""
        return (*self.ancestors, self.id)


class Stages(Mapping[str, Stage]):
    """The stages of a shard's plan by id, created on lookup. Iterates in the order of the sequences."""

    def __init__(
        self, shard: int, orders: Sequence[tuple[int, ...]], chains: Sequence[tuple[str, ...]], places: dict[str, int]
    ) -> None:
        """`places`: for each id, the index of the first sequence that has it, times L, plus its position there."""
        self._shard = shard
        self._orders = orders
        self._chains = chains
        self._places = places

    def __getitem__(self, name: str) -> Stage:
        sequence, position = divmod(self._places[name], len(self._orders[0]))
        return Stage(name, self._shard, self._orders[sequence][: position + 1], self._chains[sequence][:position])

    def parent(self, name: str) -> str | None:
        """`self[name].parent`, without creating the stage."""
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
    """The wanted stages of one shard: its orders, and for each the ids of stages 1..L."""

    shard: int
    orders: tuple[tuple[int, ...], ...]
    chains: tuple[tuple[str, ...], ...]
    stages: Stages

    def depths(self, have: Iterable[str]) -> tuple[int, ...]:
        """The live depth of each sequence: how many stages from depth 1 on are in `have` without a gap."""
        published = have if isinstance(have, (set, frozenset)) else set(have)
        return tuple(_prefix_length(chain, published) for chain in self.chains)

    def deepest(self, have: Iterable[str]) -> Stage | None:
        """The deepest live stage; ties by the first sequence. None: the shard is dead."""
        depths = self.depths(have)
        depth = max(depths, default=0)
        return self.stages[self.chains[depths.index(depth)][depth - 1]] if depth else None


@dataclass(frozen=True)
class Delta:
    """The difference between the wanted and the accepted stages."""

    stale: frozenset[str]  # to prune and purge
    missing: frozenset[str]
    ready: tuple[Stage, ...]  # missing stages whose parent exists; shallowest first


def plan_shard(
    shard: int, orders: Sequence[tuple[int, ...]], slice_digests: Mapping[int, str], recipe: str
) -> ShardPlan:
    """The plan of `shard`: one chain of stages per order, with shared prefixes."""
    names = StageNames(recipe, shard, slice_digests)
    places: dict[str, int] = {}
    own: dict[str, str] = {}  # one string object per id, even if several sequences share it
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
    """The stale, missing and ready stages of one shard. `have`: the ids of its accepted stages."""
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
