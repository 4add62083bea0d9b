"""Costs and forecasts for slices of unequal sizes, against an obvious count of every stage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.plan.cost import healing_cost, plan_cost
from s3t_ray.plan.forecast import deletion_chances
from s3t_ray.plan.overview import plan_overview
from s3t_ray.plan.work import describe_work, sized_healing, sized_stages

SHAPE = ModelShape(layers=12, hidden=64, intermediate=128, heads=4, kv_heads=4, vocabulary=300)
SLICES = 3
shards = st.lists(
    st.tuples(
        st.lists(st.sampled_from(list(permutations(range(SLICES)))), min_size=1, max_size=4, unique=True),
        st.lists(st.integers(0, 9), min_size=SLICES, max_size=SLICES),
    ),
    min_size=1,
    max_size=3,
).filter(lambda made: sum(sum(sizes) for _, sizes in made) > 0)


@given(shards)
def test_stages_and_healing_are_summed_stage_by_stage(made: list[tuple[list[tuple[int, ...]], list[int]]]) -> None:
    orders, sizes = [each for each, _ in made], [each for _, each in made]
    total = sum(map(sum, sizes))
    mean = total / (len(made) * SLICES)
    trained = dict.fromkeys(range(1, SLICES + 1), 0.0)
    unshared, healed = dict(trained), dict(trained)
    for shard, counts in zip(orders, sizes, strict=True):
        for order in shard:
            for depth in trained:
                unshared[depth] += sum(counts[index] for index in order[:depth]) / (depth * mean)
        for prefix in {order[:depth] for order in shard for depth in trained}:
            learned = sum(counts[index] for index in prefix)
            trained[len(prefix)] += learned / (len(prefix) * mean)
            for index in prefix:  # a deletion in this slice has the whole stage trained again
                healed[len(prefix)] += counts[index] / total * learned / (len(prefix) * mean)
    assert sized_stages(orders, sizes) == pytest.approx(trained)
    assert sized_stages(orders, sizes, shared=False) == pytest.approx(unshared)
    assert sized_healing(orders, sizes) == pytest.approx(healed)


def test_even_sizes_cost_what_an_even_plan_costs(make_config: Callable[..., Config]) -> None:
    config = make_config(shards=2, slices=3, budget=3)
    work = describe_work(config, 60, 50.0, 0.5, SHAPE)
    orders = [[(0, 1, 2), (1, 2, 0), (2, 0, 1)]] * 2
    even = [[10] * 3] * 2
    cost, sized = plan_cost(work, orders), plan_cost(work, orders, even)
    assert sized.training.stages == cost.training.stages == 18
    assert sized.flops == pytest.approx(cost.flops) and sized.unshared.flops == pytest.approx(cost.unshared.flops)
    healing, sized_one = healing_cost(work, orders), healing_cost(work, orders, even)
    assert sized_one.stages == healing.stages and sized_one.flops == pytest.approx(healing.flops)


def test_one_large_slice_first_in_all_orders_costs_more_and_dies_sooner(make_config: Callable[..., Config]) -> None:
    config = make_config(shards=1, slices=3, budget=1)
    work = describe_work(config, 30, 50.0, 0.5, SHAPE)
    orders = [[(0, 1, 2)]]
    heavy = [[28, 1, 1]]
    tokens = plan_cost(work, orders).training.tokens
    assert plan_cost(work, orders, heavy).training.tokens == pytest.approx(tokens * (28 + 29 + 30) / (10 + 20 + 30))
    found = plan_overview(config, 30, 50.0, 0.5, SHAPE, heavy)
    assert found.forecast.simulated.mean < 0.6 * found.forecast.closed_form
    assert deletion_chances([[1, 0, 1]]) is None and deletion_chances([[1, 3]]) == [[0.25, 0.75]]
