"""Computes everything that `s3t plan` shows before training: the stages, their cost, and how many deletions
the run survives.

In: the config, the size of the data, the shape of the base. Out: `PlanOverview`, frozen. Pure. Takes
about a second for any config, because large runs simulate only a sample of the shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.plan.boundaries import Boundary, Rates, boundaries, choose_depths, rates
from s3t_ray.plan.cost import (
    PlanCost,
    StorageBytes,
    TrainingCost,
    healing_cost,
    plan_cost,
    storage_bytes,
)
from s3t_ray.plan.forecast import (
    Estimate,
    Orders,
    count_first_slices,
    deletion_chances,
    expected_deletions_for_first_slices,
    full_slices_first,
    mean_depths,
    most_depth_after,
    simulate_deletions,
)
from s3t_ray.plan.memory import RankMemory, engine_setting, rank_memory
from s3t_ray.plan.orders import alike_in_all_shards, orders
from s3t_ray.plan.work import Sizes, Work, describe_work

RETENTION_DELETIONS = (1, 2, 3, 4)
SIMULATED_HITS = 2_000_000
"""Maximum first slices x trials: about half a second."""
MOST_TRIALS = 20_000
MOST_SHARDS_SAMPLED = 16
"""Retention is averaged over at most this many shards if their orders differ."""


@dataclass(frozen=True)
class LayerGroup:
    """Layers [first_layer, last_layer] that stages of this depth train."""

    depth: int
    first_layer: int
    last_layer: int


@dataclass(frozen=True)
class DeletionForecast:
    """The number of deletions until every shard is dead, without healing."""

    closed_form: float  # for equally likely slices
    simulated: Estimate  # for equally likely records, if the sizes of the slices are known
    one_sequence: float  # the closed form with budget 1 (SISA)


@dataclass(frozen=True)
class Retention:
    """The mean depth of a shard's deepest model after `deletions` deletions in it, without healing."""

    deletions: int
    depth: Estimate
    most: float  # the maximum for any orders


@dataclass(frozen=True)
class PlanOverview:
    """The overview of a run. Counts of records and tokens are expectations."""

    name: str
    shards: int
    slices: int
    budget: int
    order_kind: str
    records: int
    held_out_records: float
    work: Work
    orders_by_shard: tuple[tuple[tuple[int, ...], ...], ...]  # only those of shard 0 if all are the same
    layer_groups: tuple[LayerGroup, ...]
    sequences: int  # over all shards
    cost: PlanCost
    rates: Rates  # speed of a rank: configured or assumed
    boundaries: tuple[Boundary, ...]  # the highest first; empty if states are recomputed for each pack
    boundaries_by_plan: bool  # engine.stored_boundaries: auto
    healing: TrainingCost  # mean cost per deletion, healed eagerly
    storage: StorageBytes
    rank_memory: RankMemory
    forecast: DeletionForecast
    retention: tuple[Retention, ...]

    @property
    def stages(self) -> int:
        """The number of distinct stages to train, over all shards."""
        return round(self.cost.training.stages)

    @property
    def stages_unshared(self) -> int:
        """The number of stages if no sequences shared a prefix."""
        return round(self.cost.unshared.stages)


def plan_overview(
    config: Config,
    records: int,
    tokens_per_record: float,
    labelled_share: float,
    shape: ModelShape,
    sizes: Sizes | None = None,
) -> PlanOverview:
    """The overview of a run over `records` records, including held-out ones.

    `tokens_per_record`: mean length. `labelled_share`: the fraction of tokens with a loss. `sizes`:
    training records by shard and slice; None: evenly distributed. Raises ConfigError if the layer
    groups do not fit the model or a figure is impossible.
    """
    work = describe_work(config, records, tokens_per_record, labelled_share, shape)
    same = alike_in_all_shards(config)
    by_shard = [orders(config, 0)] * config.shards if same else [orders(config, s) for s in range(config.shards)]
    work = replace(work, stored_depths=choose_depths(config, work, by_shard))
    speed = rates(config)
    return PlanOverview(
        name=config.name,
        shards=config.shards,
        slices=config.slices,
        budget=config.budget,
        order_kind=config.order.kind,
        records=records,
        held_out_records=records * config.data.holdout,
        work=work,
        orders_by_shard=tuple(by_shard[:1] if same else by_shard),
        layer_groups=tuple(
            LayerGroup(depth, work.boundary(depth), work.boundary(depth) + work.trained_layers - 1)
            for depth in range(1, config.slices + 1)
        ),
        sequences=sum(len(each) for each in by_shard),
        cost=plan_cost(work, by_shard, sizes),
        rates=speed,
        boundaries=boundaries(work, by_shard, speed) if config.engine.hidden_states == "store" else (),
        boundaries_by_plan=config.engine.stored_boundaries == "auto",
        healing=healing_cost(work, by_shard, sizes),
        storage=storage_bytes(work, by_shard),
        rank_memory=rank_memory(work, engine_setting(config)),
        forecast=_forecast(config, by_shard, sizes),
        retention=_retention(config, by_shard, sizes),
    )


def _forecast(config: Config, by_shard: Sequence[Orders], sizes: Sizes | None) -> DeletionForecast:
    firsts = count_first_slices(by_shard)
    trials = max(100, min(MOST_TRIALS, SIMULATED_HITS // firsts))
    return DeletionForecast(
        closed_form=expected_deletions_for_first_slices(config.shards, config.slices, firsts),
        simulated=_simulated(by_shard, trials, config.seed, sizes),
        one_sequence=expected_deletions_for_first_slices(config.shards, config.slices, config.shards),
    )


def _simulated(by_shard: Sequence[Orders], trials: int, seed: int, sizes: Sizes | None) -> Estimate:
    """Simulate without the empty shards, whose models no deletion can affect."""
    if sizes is None:
        return simulate_deletions(by_shard, trials, seed)
    filled = [shard for shard, counts in enumerate(sizes) if any(counts)]
    orders_of_filled = [full_slices_first(by_shard[shard], sizes[shard]) for shard in filled]
    return simulate_deletions(orders_of_filled, trials, seed, deletion_chances([sizes[shard] for shard in filled]))


def _retention(config: Config, by_shard: Sequence[Orders], sizes: Sizes | None) -> tuple[Retention, ...]:
    """The mean over a sample of the shards with records; one shard suffices if all are alike."""
    if sizes is None:
        sampled = by_shard[: 1 if alike_in_all_shards(config) else MOST_SHARDS_SAMPLED]
        chances: list[list[float] | None] = [None] * len(sampled)
    else:
        filled = [shard for shard, counts in enumerate(sizes) if any(counts)][:MOST_SHARDS_SAMPLED]
        sampled = [by_shard[shard] for shard in filled]
        chances = [*(deletion_chances([sizes[shard]])[0] for shard in filled)]
    depths_by_shard = [
        mean_depths(each, RETENTION_DELETIONS, likely, trials=5_000, seed=config.seed)
        for each, likely in zip(sampled, chances, strict=True)
    ]
    found = []
    for deletions, depths in zip(RETENTION_DELETIONS, zip(*depths_by_shard, strict=True), strict=True):
        mean = sum(depth.mean for depth in depths) / len(depths)
        error = sum(depth.standard_error**2 for depth in depths) ** 0.5 / len(depths)
        most = sum(most_depth_after(config.slices, deletions, likely) for likely in chances) / len(chances)
        found.append(Retention(deletions, Estimate(mean, error), most))
    return tuple(found)
