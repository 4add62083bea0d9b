"""The overview: that its parts agree with each other and with the config."""

from collections.abc import Callable

import pytest

from s3t_ray.config.load import load_config, ready_configs
from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.errors import ConfigError
from s3t_ray.plan.orders import orders
from s3t_ray.plan.overview import plan_overview

SHAPE = ModelShape(layers=40, hidden=64, intermediate=128, heads=4, kv_heads=4, vocabulary=300)


def test_an_overview_of_chains(make_config: Callable[..., Config]) -> None:
    config = make_config(shards=3, slices=6, budget=20, kind="chains", data={"path": "d", "holdout": 0.1})
    found = plan_overview(config, 1000, 50.0, 0.5, SHAPE)
    assert (found.sequences, found.stages, found.stages_unshared) == (60, 3 * 101, 3 * 120)
    assert found.held_out_records == pytest.approx(100)
    assert found.orders_by_shard == (orders(config, 0),)
    assert [(group.first_layer, group.last_layer) for group in found.layer_groups][:2] == [(38, 39), (36, 37)]
    assert found.forecast.closed_form == pytest.approx(18 * sum(1 / k for k in range(1, 19)))
    assert found.forecast.one_sequence == pytest.approx(18 * (1 + 1 / 2 + 1 / 3))
    close = found.forecast.simulated
    assert abs(close.mean - found.forecast.closed_form) < 3 * close.standard_error
    assert [row.deletions for row in found.retention] == [1, 2, 3, 4]
    assert all(row.depth.mean == pytest.approx(row.most) for row in found.retention)
    assert found.retention[0].depth.mean == pytest.approx(5)


def test_random_orders_are_shown_shard_by_shard(make_config: Callable[..., Config]) -> None:
    config = make_config(shards=3, slices=4, budget=2, kind="random")
    found = plan_overview(config, 100, 50.0, 0.5, SHAPE)
    assert found.orders_by_shard == tuple(orders(config, shard) for shard in range(3))
    assert all(row.depth.mean <= row.most for row in found.retention)
    firsts = sum(len({order[0] for order in each}) for each in found.orders_by_shard)
    assert found.forecast.closed_form == pytest.approx(12 * sum(1 / k for k in range(1, firsts + 1)))


def test_the_same_config_gives_the_same_overview(make_config: Callable[..., Config]) -> None:
    config = make_config(slices=4, budget=4)
    assert plan_overview(config, 100, 50.0, 0.5, SHAPE) == plan_overview(config, 100, 50.0, 0.5, SHAPE)


@pytest.mark.parametrize("name", [name for name in ready_configs() if load_config(name).model.shape])
def test_every_ready_config_can_be_planned(name: str) -> None:
    config = load_config(name)
    assert config.model.shape
    found = plan_overview(config, 52_000, 182.0, 0.83, config.model.shape)
    assert found.stages <= found.stages_unshared
    assert found.healing.flops < found.cost.training.flops
    assert found.rank_memory.total < 80e9


def test_groups_that_do_not_fit_the_real_model_are_refused(make_config: Callable[..., Config]) -> None:
    with pytest.raises(ConfigError, match="the model has 7"):
        plan_overview(make_config(slices=4), 100, 50.0, 0.5, SHAPE.model_copy(update={"layers": 7}))
