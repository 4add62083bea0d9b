"""Combines several chains into one stage, for `ensemble: mean`: one model answers instead of one per shard.

In: loaded stages and the chains of the ensemble. Out: a `LoadedStage` of rank m x r that exists only in memory. It
concatenates the matrices of the m chains, so its update is exactly the mean of their updates, as in `s3t export
--merged`. A chain that does not reach a layer contributes zero there. Never reads or writes a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from s3t_ray.ensemble.answers import Chain
from s3t_ray.ensemble.frozen_base import FrozenBase
from s3t_ray.ensemble.loaded_stage import LoadedStage, LoraDelta
from s3t_ray.ensemble.row_lora import BASE, changing_stage


def answering_rows(
    base: FrozenBase, stages: Mapping[str, LoadedStage], team: tuple[Chain, ...]
) -> tuple[tuple[Chain, ...], Mapping[str, LoadedStage]]:
    """The rows whose outputs are averaged for the chains of `team`, and the stages that these rows need."""
    if base.combine == "logits" or team == (BASE,):
        return team, stages
    mean = mean_stage(base, stages, team)
    return ((mean.id,),), {**stages, mean.id: mean}


def mean_stage(base: FrozenBase, stages: Mapping[str, LoadedStage], chains: Sequence[Chain]) -> LoadedStage:
    """The mean of `chains`, none of which may be empty. Raises StoreError if two stages of a chain overlap."""
    deltas: dict[str, LoraDelta] = {}
    for name in base.linears:
        changing = [changing_stage(base, name, chain, stages) for chain in chains]
        known = [None if stage is None else stages[stage].deltas[name] for stage in changing]
        some = next((delta for delta in known if delta is not None), None)
        if some is None:
            continue
        nothing = LoraDelta(torch.zeros_like(some.down), torch.zeros_like(some.up))
        whole = [nothing if delta is None else delta for delta in known]
        up = torch.cat([delta.up for delta in whole]).float() / len(chains)
        deltas[name] = LoraDelta(torch.cat([delta.down for delta in whole], 1), up.to(some.up.dtype))
    lowest = min(base.layer_of[name] for name in deltas)
    return LoadedStage(f"mean of {', '.join(chain[-1] for chain in chains)}", deltas, lowest, {})
