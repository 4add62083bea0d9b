"""The figures that trials are compared by: deletions survived, depth kept, costs, and held-out loss.

In: a trial's config with the size of its data, and the measurements of its run. Out: frozen figures. Pure. The
forecasts are those of `s3t plan`; only the losses and the times need training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, lgamma, log, log1p

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.plan.forecast import mean_depths
from s3t_ray.plan.overview import plan_overview


@dataclass(frozen=True)
class Size:
    """The size of the data and the base."""

    records: int  # including held-out records
    tokens_per_record: float
    labelled_share: float
    shape: ModelShape


@dataclass(frozen=True)
class Forecast:
    """The forecast before training. Depths are means over shards, without healing."""

    shards: int
    slices: int
    budget: int
    order: str
    stages: int
    deletions_until_dead: float  # closed form
    simulated_deletions: float
    simulated_error: float
    depth_after: tuple[float, ...]  # after 0, 1, 2, ... deletions spread over the run
    training_flops: float
    healing_flops: float  # per deletion, healed immediately
    storage_bytes: int
    gpu_bytes: int  # memory of one rank


@dataclass(frozen=True)
class Measured:
    """The measurements of a trained run."""

    loss_by_depth: tuple[float, ...]  # held-out, in nats per labelled token; index 0: the base model
    trained_stages: int  # trained by this trial
    reused_stages: int  # trained by earlier trials of the same run
    seconds: float
    tokens: int
    began: str  # ISO 8601 in UTC
    ended: str  # ISO 8601 in UTC, after its losses were measured


@dataclass(frozen=True)
class Outcome:
    """The figures of one trial."""

    label: str
    root: str
    forecast: Forecast
    measured: Measured | None  # None: not trained

    def loss_after(self, deletions: int) -> float | None:
        """The held-out loss at the mean depth after `deletions` deletions, interpolated between measured depths."""
        if self.measured is None or not self.measured.loss_by_depth:
            return None
        losses = self.measured.loss_by_depth
        depth = min(self.forecast.depth_after[deletions], len(losses) - 1)
        below = min(int(depth), len(losses) - 2)
        return losses[below] + (depth - below) * (losses[below + 1] - losses[below])

    def depth_share_after(self, deletions: int) -> float:
        """The fraction of the model's depth that remains after `deletions` deletions."""
        return self.forecast.depth_after[deletions] / self.forecast.slices


def forecast(config: Config, size: Size, deletions: int) -> Forecast:
    """The forecast for one trial. `depth_after` has an entry for each of 0..`deletions`."""
    overview = plan_overview(config, size.records, size.tokens_per_record, size.labelled_share, size.shape)
    return Forecast(
        shards=config.shards,
        slices=config.slices,
        budget=config.budget,
        order=config.order.kind,
        stages=overview.stages,
        deletions_until_dead=overview.forecast.closed_form,
        simulated_deletions=overview.forecast.simulated.mean,
        simulated_error=overview.forecast.simulated.standard_error,
        depth_after=depth_after(overview.orders_by_shard[0], config.shards, deletions),
        training_flops=overview.cost.flops,
        healing_flops=overview.healing.flops,
        storage_bytes=overview.storage.total,
        gpu_bytes=overview.rank_memory.total,
    )


def depth_after(orders: Sequence[Sequence[int]], shards: int, deletions: int) -> tuple[float, ...]:
    """The mean depth of a shard after 0..`deletions` uniform deletions in the run.

    The number of deletions in one shard is binomial: each of n deletions hits it with probability 1 / m.
    """
    most = _likely_most(deletions, shards)
    inside = [depth.mean for depth in mean_depths(orders, range(most + 1))]
    return tuple(
        sum(_binomial(total, hits, shards) * inside[hits] for hits in range(min(total, most) + 1))
        for total in range(deletions + 1)
    )


def _likely_most(deletions: int, shards: int) -> int:
    """A number of hits per shard that is exceeded with probability below 1e-9: mean + 12 standard deviations."""
    mean = deletions / shards
    return min(deletions, int(mean + 12 * mean**0.5) + 12)


def _binomial(total: int, hits: int, shards: int) -> float:
    if shards == 1:
        return float(hits == total)
    ways = lgamma(total + 1) - lgamma(hits + 1) - lgamma(total - hits + 1)
    return exp(ways - hits * log(shards) + (total - hits) * log1p(-1 / shards))
