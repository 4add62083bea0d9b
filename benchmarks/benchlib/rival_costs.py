"""Training and healing FLOPs of the systems in a quality curve, by the formulas of `s3t plan`.

In: a system's config, the base's shape, the records of a shard. Out: FLOPs of a stage by depth, of all stages of some
orders, and of the stages that deletions in a set of slices make stale. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.plan.cost import stage_cost
from s3t_ray.plan.work import describe_work

Order = tuple[int, ...]


def stage_flops(config: Config, shape: ModelShape, shard_records: int, record_tokens: float) -> list[float]:
    """FLOPs of a stage of depth 1..L in a shard with this many records and stored hidden states."""
    work = describe_work(config, shard_records, record_tokens, 1.0, shape)
    return [stage_cost(work, depth).flops for depth in range(1, config.slices + 1)]


def prefixes_of(orders: Sequence[Order]) -> list[Order]:
    """The stages of these orders; shared stages occur once."""
    return list(dict.fromkeys(order[:depth] for order in orders for depth in range(1, len(order) + 1)))


def training_flops(orders: Sequence[Order], by_depth: Sequence[float]) -> float:
    """FLOPs of all stages of one shard."""
    return sum(by_depth[len(prefix) - 1] for prefix in prefixes_of(orders))


def healing_flops(orders: Sequence[Order], by_depth: Sequence[float]) -> np.ndarray:
    """FLOPs to retrain every stage that learned a hit slice, by mask of hit slices, float [2^L]."""
    prefixes = prefixes_of(orders)
    learned = np.array([sum(1 << at for at in prefix) for prefix in prefixes])
    cost = np.array([by_depth[len(prefix) - 1] for prefix in prefixes])
    masks = np.arange(1 << len(orders[0]))
    return ((learned[None, :] & masks[:, None]) != 0) @ cost
