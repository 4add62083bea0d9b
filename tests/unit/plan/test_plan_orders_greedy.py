"""Greedy and matched orders against searches through all orders."""

from collections.abc import Callable
from itertools import permutations
from random import Random

import pytest

from s3t_ray.errors import ConfigError
from s3t_ray.plan.forecast import mean_depth_after, most_depth_after
from s3t_ray.plan.orders_bms import bms_orders
from s3t_ray.plan.orders_chains import chain_orders
from s3t_ray.plan.orders_greedy import greedy_orders

Orders = tuple[tuple[int, ...], ...]


def _value(some_orders: Orders, probabilities: list[float]) -> float:
    """Mean depth, averaged over 1..L deletions."""
    slices = len(probabilities)
    return sum(mean_depth_after(some_orders, r, probabilities).mean for r in range(1, slices + 1)) / slices


def _uneven(slices: int, seed: int) -> list[float]:
    weights = [Random(f"{seed} {s}").random() + 0.05 for s in range(slices)]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("slices", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_greedy_order_is_the_best_of_all_to_add(slices: int, seed: int) -> None:
    probabilities = _uneven(slices, seed)
    chosen: Orders = ()
    for order in greedy_orders(slices, min(6, len(list(permutations(range(slices))))), probabilities):
        best = max(_value((*chosen, other), probabilities) for other in permutations(range(slices)))
        chosen = (*chosen, order)
        assert _value(chosen, probabilities) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("slices", [3, 4, 6])
def test_greedy_reaches_the_maximum_with_as_many_orders_as_there_are_chains(slices: int) -> None:
    chains = len(chain_orders(slices, 10**6))
    found = greedy_orders(slices, chains)
    assert len(set(found)) == chains
    for deletions in (1, 2, 3):
        assert mean_depth_after(found, deletions).mean == pytest.approx(most_depth_after(slices, deletions))
    assert greedy_orders(slices, chains + 1)[:chains] == found  # and stops, or adds nothing that is not new


def test_greedy_stops_when_nothing_more_can_be_kept() -> None:
    assert len(greedy_orders(3, 6)) == 3
    assert greedy_orders(2, 2, [1.0, 0.0]) == ((1, 0),)
    assert greedy_orders(1, 1) == ((0,),), "a shard always trains something"


def test_greedy_keeps_more_than_others_where_slices_differ() -> None:
    probabilities = [0.4, 0.2, 0.1, 0.1, 0.1, 0.1]
    for budget in (2, 3, 6, 9, 12):
        greedy = _value(greedy_orders(6, budget, probabilities), probabilities)
        assert greedy >= _value(bms_orders(6, budget, probabilities), probabilities)
        assert greedy > _value(chain_orders(6, budget), probabilities)


def test_a_slice_that_is_often_hit_comes_late() -> None:
    probabilities = [0.05, 0.5, 0.15, 0.1, 0.2]
    assert greedy_orders(5, 1, probabilities) == ((0, 3, 2, 4, 1),)
    assert bms_orders(5, 1, probabilities)[0][:3] == (0, 3, 2)  # a matching cannot give its best order all the best


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_matched_orders_hand_each_slice_to_one_sequence_a_level(seed: int) -> None:
    found = bms_orders(6, 6, _uneven(6, seed))
    for level in range(6):
        assert {order[level] for order in found} == set(range(6))


@pytest.mark.parametrize("exponent", [1.0, 3.0])
def test_a_matching_is_the_best_at_its_level(exponent: float) -> None:
    probabilities = _uneven(4, 7)
    found = {order[0]: order for order in bms_orders(4, 4, probabilities, exponent)}

    def score(prefix: tuple[int, ...]) -> float:
        return len(prefix) * (1 - sum(probabilities[s] for s in prefix)) ** exponent

    for level in (1, 2):
        prefixes = [found[first][:level] for first in range(4)]
        options = [
            sum(score((*prefix, s)) for prefix, s in zip(prefixes, handed, strict=True))
            for handed in permutations(range(4))
            if all(s not in prefix for prefix, s in zip(prefixes, handed, strict=True))
        ]
        assert sum(score(found[first][: level + 1]) for first in range(4)) == pytest.approx(max(options))


def test_above_l_sampled_orders_favour_slices_that_are_seldom_hit() -> None:
    probabilities = [0.6, 0.1, 0.1, 0.1, 0.1]
    found = bms_orders(5, 60, probabilities)
    assert len(set(found)) == 60 and found[:5] == bms_orders(5, 5, probabilities)
    firsts = [order[0] for order in found[5:]]
    # First with weight 0.4 of 4: 5.5 of 55 expected, standard deviation 2.2.
    assert firsts.count(0) <= 12
    assert bms_orders(5, 60, probabilities, seed=1)[5:] != found[5:]


@pytest.mark.parametrize("choose", [greedy_orders, bms_orders])
def test_impossible_values_are_refused(choose: Callable[..., object]) -> None:
    with pytest.raises(ConfigError, match=r"budget must be 1\.\.6 .* got 7"):
        choose(3, 7)
    with pytest.raises(ConfigError, match="3 numbers of at least 0 that sum to 1"):
        choose(3, 2, [0.5, 0.5])
    with pytest.raises(ConfigError, match="17 slices"):
        choose(17, 2)
