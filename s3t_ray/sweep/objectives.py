"""What a trial is judged by: deletions borne, depth kept, training, healing and storage cost, held-out loss.

In: a trial's config with the size of its data, and what was measured of its run. Out: frozen figures.
Pure. The forecasts are those of `s3t plan`; only the losses and the times need training.
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
    """Of the data and the base."""

    records: int  # held-out ones included
    tokens_per_record: float
    labelled_share: float
    shape: ModelShape


@dataclass(frozen=True)
class Forecast:
    """Before anything is trained. Depths are means over shards, nothing healed."""

    shards: int
    slices: int
    budget: int
    order: str
    stages: int
    deletions_until_dead: float  # closed form
    simulated_deletions: float
    simulated_error: float
    depth_after: tuple[float, ...]  # after 0, 1, 2, ... deletions spread over the whole run, as asked
    training_flops: float
    healing_flops: float  # of one deletion, healed at once
    storage_bytes: int
    gpu_bytes: int  # memory of one rank


@dataclass(frozen=True)
class Measured:
    """Of a trained run."""

    loss_by_depth: tuple[float, ...]  # held-out, nats a labelled token; index 0: the base model
    trained_stages: int  # by this trial
    reused_stages: int  # that earlier trials of the same run had trained
    seconds: float
    tokens: int
    began: str  # ISO 8601 in UTC; of trials side by side, each begins before the other has ended
    ended: str  # its losses measured


@dataclass(frozen=True)
class Outcome:
    """One trial."""

    label: str
    root: str
    forecast: Forecast
    measured: Measured | None  # None: only forecast

    def loss_after(self, deletions: int) -> float | None:
        """Held-out loss at the mean depth after so many deletions, between those measured at whole depths."""
        if self.measured is None or not self.measured.loss_by_depth:
            return None
        losses = self.measured.loss_by_depth
        depth = min(self.forecast.depth_after[deletions], len(losses) - 1)
        below = min(int(depth), len(losses) - 2)
        return losses[below] + (depth - below) * (losses[below + 1] - losses[below])

    def depth_share_after(self, deletions: int) -> float:
        """Share of the model's depth that is left."""
        return self.forecast.depth_after[deletions] / self.forecast.slices


def forecast(config: Config, size: Size, deletions: int) -> Forecast:
    """Of one trial; `depth_after` has an entry for 0..`deletions`."""
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
    """Mean depth of a shard after 0..`deletions` uniform deletions in the whole run.

    Those in one shard are binomial: of n deletions each falls in it with chance 1 / m.
    """
    most = _likely_most(deletions, shards)
    inside = [depth.mean for depth in mean_depths(orders, range(most + 1))]
    return tuple(
        sum(_binomial(total, hits, shards) * inside[hits] for hits in range(min(total, most) + 1))
        for total in range(deletions + 1)
    )


def _likely_most(deletions: int, shards: int) -> int:
    """Hits of one shard that are exceeded with a chance below 1e-9, by the mean and twelve standard deviations."""
    mean = deletions / shards
    return min(deletions, int(mean + 12 * mean**0.5) + 12)


def _binomial(total: int, hits: int, shards: int) -> float:
    if shards == 1:
        return float(hits == total)
    ways = lgamma(total + 1) - lgamma(hits + 1) - lgamma(total - hits + 1)
    return exp(ways - hits * log(shards) + (total - hits) * log1p(-1 / shards))
