"""Forecasts: formulas against loops that play every deletion, and the figures known from elsewhere."""

from collections.abc import Callable
from itertools import product
from math import inf, sqrt
from random import Random

import pytest

from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError
from s3t_ray.plan.forecast import (
    count_first_slices,
    expected_deletions,
    expected_deletions_for_first_slices,
    mean_depth_after,
    most_depth_after,
    simulate_deletions,
)
from s3t_ray.plan.orders import orders
from s3t_ray.plan.survival import hit_distribution, surviving_depths, uniform_weights

Orders = tuple[tuple[int, ...], ...]


def _depth(some_orders: Orders, hit: set[int]) -> int:
    return max(next((i for i, s in enumerate(order) if s in hit), len(order)) for order in some_orders)


def _play(by_shard: list[Orders], chances: list[float], chance: Random) -> int:
    """Deletions until every shard is dead, one after another."""
    slices = len(by_shard[0][0])
    places = [(shard, s) for shard in range(len(by_shard)) for s in range(slices)]
    hit: list[set[int]] = [set() for _ in by_shard]
    deletions = 0
    while any(_depth(each, gone) for each, gone in zip(by_shard, hit, strict=True)):
        shard, s = chance.choices(places, chances)[0]
        hit[shard].add(s)
        deletions += 1
    return deletions


@pytest.mark.parametrize(
    ("shards", "slices", "budget", "known"),  # simulated by others, who state no error
    [
        *((5, 6, 1, 67.8), (5, 6, 2, 88.2), (5, 6, 3, 100.7), (5, 6, 4, 107.9), (5, 6, 5, 114.1), (5, 6, 6, 120.4)),
        *((3, 4, 1, 22.0), (3, 4, 2, 29.2), (3, 4, 3, 33.8), (3, 4, 4, 37.2)),
        *((5, 64, 1, 730.0), (5, 64, 8, 1353.0), (5, 64, 64, 2033.0)),
    ],
)
def test_known_deletions_until_dead(
    make_config: Callable[..., Config], shards: int, slices: int, budget: int, known: float
) -> None:
    by_shard = [orders(make_config(slices=slices, budget=budget, shards=shards), 0)] * shards
    exact = expected_deletions(shards, slices, budget)
    found = simulate_deletions(by_shard, 4_000, seed=1)
    assert abs(found.mean - exact) < 3 * found.standard_error
    assert found.standard_error < 0.02 * exact
    assert exact == pytest.approx(known, rel=0.015)
    assert exact == expected_deletions_for_first_slices(shards, slices, count_first_slices(by_shard))


def test_the_closed_form_to_the_digit_and_its_gain() -> None:
    assert [round(expected_deletions(5, 6, budget), 1) for budget in range(1, 8)] == [
        *(68.5, 87.9, 99.5, 107.9, 114.5, 119.8),
        119.8,  # a budget above L adds nothing
    ]
    gains = [expected_deletions(m, n, n) / expected_deletions(m, n, 1) for m, n in ((5, 6), (3, 4), (5, 64))]
    assert [round(gain, 2) for gain in gains] == [1.75, 1.69, 2.78]


@pytest.mark.parametrize("seed", range(6))
def test_the_simulation_agrees_with_a_plain_loop(seed: int) -> None:
    chance = Random(seed)
    shards, slices = chance.randint(1, 3), chance.randint(1, 4)
    by_shard = [
        tuple({tuple(chance.sample(range(slices), slices)) for _ in range(chance.randint(1, 3))}) for _ in range(shards)
    ]
    weights = [chance.random() + 0.05 for _ in range(shards * slices)]
    flat = [weight / sum(weights) for weight in weights]
    found = simulate_deletions(
        by_shard, 4_000, seed, [flat[shard * slices : (shard + 1) * slices] for shard in range(shards)]
    )
    played = [_play(by_shard, flat, chance) for _ in range(800)]
    mean = sum(played) / len(played)
    error = sqrt(sum((p - mean) ** 2 for p in played) / len(played) / (len(played) - 1))
    assert abs(found.mean - mean) <= 4 * sqrt(error**2 + found.standard_error**2)


def test_a_standard_error_is_what_repeating_shows() -> None:
    by_shard = [((0, 1, 2), (1, 2, 0))] * 2
    means = [simulate_deletions(by_shard, 500, seed).mean for seed in range(60)]
    middle = sum(means) / 60
    spread = sqrt(sum((mean - middle) ** 2 for mean in means) / 59)
    assert spread == pytest.approx(simulate_deletions(by_shard, 500, 0).standard_error, rel=0.3)


def test_a_first_slice_that_cannot_be_hit_never_dies() -> None:
    assert simulate_deletions([((0, 1), (1, 0))], 10, 0, [[1.0, 0.0]]).mean == inf
    assert simulate_deletions([((0, 1),)], 10, 0, [[1.0, 0.0]]).mean == 1.0


@pytest.mark.parametrize("wrong", [[[0.5, 0.6]], [[1.5, -0.5]], [[1.0]]])
def test_impossible_probabilities_are_refused(wrong: list[list[float]]) -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        simulate_deletions([((0, 1),)], 10, 0, wrong)


def test_mean_depth_is_the_sum_over_every_history() -> None:
    some_orders = ((0, 1, 2), (2, 0, 1))
    chances = (0.5, 0.3, 0.2)
    for deletions in range(4):
        slow = 0.0
        for history in product(range(3), repeat=deletions):
            weight = 1.0
            for s in history:
                weight *= chances[s]
            slow += weight * _depth(some_orders, set(history))
        assert mean_depth_after(some_orders, deletions, chances).mean == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
def test_integer_weights_count_the_histories(slices: int) -> None:
    slow = [0] * 2**slices
    for deletions in range(1, slices + 1):
        for history in product(range(slices), repeat=deletions):
            slow[sum(1 << s for s in set(history))] += slices ** (slices - deletions)
    assert uniform_weights(slices).tolist() == slow


def test_tables_against_sets() -> None:
    some_orders = ((2, 0, 3, 1), (1, 3, 0, 2), (2, 3, 1, 0))
    table = surviving_depths(some_orders, 4)
    for mask in range(16):
        assert table[mask] == _depth(some_orders, {s for s in range(4) if not mask >> s & 1})
    assert hit_distribution((0.1, 0.2, 0.3, 0.4), 3).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "budget", "known"),  # simulated by others to about 0.05
    [
        ("cyclic", 1, (2.53, 1.57, 1.06, 0.72)),
        ("cyclic", 6, (5.00, 3.50, 2.67, 2.15)),
        ("chains", 20, (5.00, 4.17, 3.48, 2.90)),
    ],
)
def test_known_depths_of_six_slices(
    make_config: Callable[..., Config], kind: str, budget: int, known: tuple[float, ...]
) -> None:
    some_orders = orders(make_config(slices=6, budget=budget, kind=kind), 0)
    for deletions, depth in enumerate(known, start=1):
        assert mean_depth_after(some_orders, deletions).mean == pytest.approx(depth, abs=0.05)
        if kind == "chains":
            assert mean_depth_after(some_orders, deletions).mean == pytest.approx(most_depth_after(6, deletions))


@pytest.mark.parametrize("slices", [3, 4, 5, 7, 8])
def test_all_chains_keep_the_most_that_any_orders_can(make_config: Callable[..., Config], slices: int) -> None:
    budget = {3: 3, 4: 6, 5: 10, 7: 35, 8: 70}[slices]
    some_orders = orders(make_config(slices=slices, budget=budget, kind="chains"), 0)
    uneven = [(s + 1) / sum(range(1, slices + 1)) for s in range(slices)]
    for deletions in (1, 2, 5):
        assert mean_depth_after(some_orders, deletions, uneven).mean == pytest.approx(
            most_depth_after(slices, deletions, uneven)
        )
        fewer = some_orders[:-1]
        assert mean_depth_after(fewer, deletions + slices, uneven).mean < most_depth_after(
            slices, deletions + slices, uneven
        )


def test_many_slices_are_simulated() -> None:
    # One sequence: P[at least k slices] = (1 - k / L)^r.
    found = mean_depth_after((tuple(range(24)),), 3)
    exact = sum((1 - k / 24) ** 3 for k in range(1, 25))
    assert 0 < found.standard_error < 0.05
    assert abs(found.mean - exact) < 3 * found.standard_error
