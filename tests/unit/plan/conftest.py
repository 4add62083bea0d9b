"""Configs and plans for the tests of the plan room."""

from collections.abc import Callable

import pytest

from s3t_ray.config.schema import Config
from s3t_ray.plan.stages import ShardPlan, plan_shard


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    def make(shards: int = 2, slices: int = 4, budget: int = 1, kind: str = "cyclic", **more: object) -> Config:
        order = more.pop("order", {"kind": kind, "sequences": more.pop("sequences", ())})
        fields = {
            "name": "t",
            "model": {"path": "m"},
            "data": {"path": "d.jsonl"},
            "lora": {"layers_per_group": 2},
            "storage": {"uri": "runs/t"},
            **more,
        }
        return Config.model_validate({"shards": shards, "slices": slices, "budget": budget, "order": order, **fields})

    return make


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., ShardPlan]:
    def make(orders: tuple[tuple[int, ...], ...], shard: int = 0, digests: dict[int, str] | None = None) -> ShardPlan:
        given = digests or {s: f"d{s}" for s in orders[0]}
        return plan_shard(shard, orders, given, "recipe")

    return make
