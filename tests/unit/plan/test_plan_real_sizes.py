"""Costs and forecasts for slices of unequal sizes, against an obvious count of every stage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.plan.cost import healing_cost, plan_cost
from s3t_ray.plan.forecast import deletion_chances, full_slices_first, simulate_deletions
from s3t_ray.plan.orders import orders
from s3t_ray.plan.overview import plan_overview
from s3t_ray.plan.work import describe_work, sized_healing, sized_stages, stale_stages

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
    by_shard, sizes = [each for each, _ in made], [each for _, each in made]
    total = sum(map(sum, sizes))
    mean = total / (len(made) * SLICES)
    stale = 0.0
    trained = dict.fromkeys(range(1, SLICES + 1), 0.0)
    unshared, healed = dict(trained), dict(trained)
    for shard, counts in zip(by_shard, sizes, strict=True):
        for order in shard:
            for depth in trained:
                unshared[depth] += sum(counts[index] for index in order[:depth]) / (depth * mean)
        for prefix in {order[:depth] for order in shard for depth in trained}:
            learned = sum(counts[index] for index in prefix)
            trained[len(prefix)] += learned / (len(prefix) * mean)
            for index in prefix:  # a deletion in this slice has the whole stage trained again
                healed[len(prefix)] += counts[index] / total * learned / (len(prefix) * mean)
                stale += counts[index] / total
    assert sized_stages(by_shard, sizes) == pytest.approx(trained)
    assert sized_stages(by_shard, sizes, shared=False) == pytest.approx(unshared)
    assert sized_healing(by_shard, sizes) == pytest.approx(healed)
    assert stale_stages(by_shard, sizes) == pytest.approx(stale)


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
    assert found.forecast.closed_form == pytest.approx(3.0)


def test_an_empty_slice_is_never_hit(make_config: Callable[..., Config]) -> None:
    """A sequence that begins with it has learned something only from its next slice on, and lives as long as that."""
    config = make_config(shards=2, slices=3, budget=1)
    (order,) = orders(config, 0)
    sizes = [[0, 0, 0], [10, 10, 10]]
    sizes[0][order[1]] = 30
    found = plan_overview(config, 60, 50.0, 0.5, SHAPE, sizes)
    # One shard's first slice with records has half of all, the other's a sixth: deletions until both are hit.
    simulated = found.forecast.simulated
    assert simulated.mean == pytest.approx(2 + 6 - 1.5, abs=4 * simulated.standard_error)
    even = plan_overview(config, 60, 50.0, 0.5, SHAPE, [sizes[1], sizes[1]])
    assert [row.most for row in found.retention] > [row.most for row in even.retention]
    nobody = plan_overview(config, 30, 50.0, 0.5, SHAPE, [[0, 0, 0], [10, 10, 10]])
    # A shard without records serves nothing that could die.
    assert nobody.forecast.simulated.mean == pytest.approx(3.0, abs=4 * nobody.forecast.simulated.standard_error)
    assert nobody.healing.stages == pytest.approx(2.0)


@settings(max_examples=20)
@given(sizes=st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=2, max_size=2))
def test_the_forecast_of_real_sizes_is_what_playing_it_gives(sizes: list[list[int]]) -> None:
    if not sum(map(sum, sizes)):
        return
    by_shard: list[list[tuple[int, ...]]] = [[(0, 1, 2), (1, 0, 2)], [(2, 1, 0)]]
    filled = [shard for shard in (0, 1) if any(sizes[shard])]
    found = simulate_deletions(
        [full_slices_first(by_shard[shard], sizes[shard]) for shard in filled],
        300,
        0,
        deletion_chances([sizes[shard] for shard in filled]),
    )
    played = [_play(by_shard, sizes, Random(seed)) for seed in range(300)]
    mean = sum(played) / len(played)
    error = (sum((each - mean) ** 2 for each in played) / len(played) / (len(played) - 1)) ** 0.5
    assert abs(found.mean - mean) <= 5 * (error**2 + found.standard_error**2) ** 0.5


def _play(by_shard: list[list[tuple[int, ...]]], sizes: list[list[int]], dice: Random) -> int:
    """Delete records, each as likely, until no sequence has a record left that it still serves."""
    places = [(shard, index) for shard, counts in enumerate(sizes) for index in range(len(counts))]
    weights = [size for counts in sizes for size in counts]
    hit: set[tuple[int, int]] = set()
    deletions = 0
    while any(_serves(order, shard, sizes[shard], hit) for shard, orders in enumerate(by_shard) for order in orders):
        hit.update(dice.choices(places, weights))
        deletions += 1
    return deletions


def _serves(order: tuple[int, ...], shard: int, sizes: list[int], hit: set[tuple[int, int]]) -> bool:
    """Whether what is left of a sequence was trained on any record."""
    for index in order:
        if (shard, index) in hit:
            return False
        if sizes[index]:
            return True
    return False
