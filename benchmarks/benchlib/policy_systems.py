"""The systems and policies to compare, and the deletions that they receive.

In: a rate of deletions and a seed. Out: a `Scenario`, and by name each system's version of it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchlib.simulate import Scenario, sisa, sisa_without_slices, uniform_deletions
from s3t_ray.config.schema import Config, Requeue
from s3t_ray.plan.orders import orders

SHARDS, SLICES, BUDGET, GROUPS = 5, 6, 6, 4
HOUR = 3600.0
STAGE_SECONDS = tuple(600.0 * depth for depth in range(1, SLICES + 1))  # ten minutes per slice
DAYS = 20

System = Callable[[Scenario], Scenario]


def _heals(**policy: object) -> System:
    return lambda scenario: replace(scenario, policy=Requeue.model_validate(policy))


SYSTEMS: dict[str, System] = {
    "SISA without slices": lambda scenario: sisa_without_slices(_heals(policy="eager")(scenario)),
    "SISA with slices": lambda scenario: sisa(_heals(policy="eager")(scenario)),
    "S3T, no re-queue": lambda scenario: replace(scenario, policy=None),
    "S3T, eager": _heals(policy="eager"),
    "S3T, lazy below 3": _heals(policy="lazy", floor=3),
    "S3T, lazy below 5": _heals(policy="lazy", floor=5),
    "S3T, batch of 6 h": _heals(policy="batch", window_seconds=6 * HOUR),
    "S3T, batch of 24 h": _heals(policy="batch", window_seconds=24 * HOUR),
}


def scenario(deletions_a_day: float, seed: int, until: float = DAYS * 24 * HOUR) -> Scenario:
    config = Config.model_validate(
        {
            "name": "policies",
            "shards": SHARDS,
            "slices": SLICES,
            "budget": BUDGET,
            "model": {"path": "none"},
            "data": {"path": "none"},
            "lora": {"layers_per_group": 1},
            "storage": {"uri": "none"},
        }
    )
    return Scenario(
        orders_by_shard=tuple(orders(config, shard) for shard in range(SHARDS)),
        stage_seconds=STAGE_SECONDS,
        groups=GROUPS,
        policy=None,
        deletions=uniform_deletions(SHARDS, SLICES, 24 * HOUR / deletions_a_day, until, seed),
        until_seconds=until,
    )
