"""One live set: a version, each shard's chain, the loaded stages and the row layout.

In: chains and loaded stages. Out: an immutable value, which the next live set replaces. No disk access.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from s3t_ray.ensemble.answers import Chain, Live
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.loaded_stage import LoadedStage
from s3t_ray.ensemble.mean_stage import answering_rows
from s3t_ray.ensemble.row_lora import BASE, Layout, plan_rows


@dataclass(frozen=True)
class LiveSet:
    """The models that answer. `chains[s]` is the chain of shard s; empty for a dead shard."""

    version: int
    chains: tuple[Chain, ...]
    stages: Mapping[str, LoadedStage]
    layout: Layout

    @property
    def stage_ids(self) -> frozenset[str]:
        return frozenset(self.stages)

    @property
    def live(self) -> Live:
        depths = tuple(len(chain) for chain in self.chains)
        return Live(self.version, depths, tuple(name for chain in self.chains for name in chain))

    def heads(self, rows: Sequence[Chain]) -> list[Mapping[str, Tensor]]:
        """The task head of each row's deepest stage; empty for the base model and for a mean of chains."""
        return [self.stages[row[-1]].head if row and row[-1] in self.stages else {} for row in rows]


def members(chains: tuple[Chain, ...]) -> tuple[Chain, ...]:
    """The chains in the ensemble: those of all shards that are not dead, or the base model alone."""
    return tuple(chain for chain in chains if chain) or (BASE,)


def assemble(base: FrozenBase, version: int, chains: tuple[Chain, ...], stages: Mapping[str, LoadedStage]) -> LiveSet:
    """The live set of `chains`. `stages` must contain all of their stages; others are dropped."""
    needed = {name: stages[name] for chain in chains for name in chain}
    rows, with_mean = answering_rows(base, needed, members(chains))
    return LiveSet(version, chains, needed, plan_rows(base, with_mean, rows))
