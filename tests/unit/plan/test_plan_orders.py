"""Orders: permutations, different, nested in the budget, and what each kind promises."""

from collections.abc import Callable
from itertools import combinations, permutations
from math import comb, factorial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError
from s3t_ray.plan.orders import alike_in_all_shards, orders
from s3t_ray.plan.orders_chains import chain_orders, maximal_chains

KINDS = ("cyclic", "chains", "greedy", "bms", "random")


@pytest.mark.parametrize("kind", KINDS)
@given(slices=st.integers(1, 7), budget=st.integers(1, 40), seed=st.integers(0, 2**63 - 1), shard=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_orders_are_different_permutations_nested_in_the_budget(
    make_config: Callable[..., Config], kind: str, slices: int, budget: int, seed: int, shard: int
) -> None:
    budget = min(budget, comb(slices, slices // 2) if kind == "chains" else factorial(slices))
    found = orders(make_config(slices=slices, budget=budget, kind=kind, seed=seed), shard)
    # Greedy stops where no further order adds depth: with as many as there are chains, or a few more.
    assert len(set(found)) == len(found) == budget or (kind == "greedy" and len(found) >= comb(slices, slices // 2))
    assert all(sorted(order) == list(range(slices)) for order in found)
    smaller = orders(make_config(slices=slices, budget=max(1, budget // 2), kind=kind, seed=seed), shard)
    assert found[: len(smaller)] == smaller


def test_cyclic_gives_all_orders_of_three_slices_rotations_first(make_config: Callable[..., Config]) -> None:
    found = orders(make_config(slices=3, budget=6), 0)
    assert found == ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0))


@pytest.mark.parametrize("slices", [4, 5, 6])
def test_cyclic_reaches_every_order(make_config: Callable[..., Config], slices: int) -> None:
    found = orders(make_config(slices=slices, budget=factorial(slices)), 0)
    assert set(found) == set(permutations(range(slices)))


@pytest.mark.parametrize("slices", [4, 6, 11])
def test_cyclic_within_l_are_rotations_and_l_squared_differ_in_the_first_two(
    make_config: Callable[..., Config], slices: int
) -> None:
    found = orders(make_config(slices=slices, budget=slices * (slices - 1)), 0)
    for order in found[:slices]:
        assert [(s - order[0]) % slices for s in order] == list(range(slices))
    assert {order[0] for order in found[:slices]} == set(range(slices))
    assert len({order[:2] for order in found}) == slices * (slices - 1)


@pytest.mark.parametrize("kind", ["greedy", "bms"])
def test_probabilities_are_proportions_for_all_shards_or_one_a_shard(
    make_config: Callable[..., Config], kind: str
) -> None:
    def found(shard: int, *rows: tuple[float, ...]) -> tuple[tuple[int, ...], ...]:
        return orders(make_config(shards=2, budget=2, order={"kind": kind, "probabilities": rows}), shard)

    first, last = (9, 1, 2, 3), (1, 2, 3, 9)
    assert found(0, first) == found(1, first) == found(0, tuple(weight / 15 for weight in first))
    assert [found(0, first, last)[0][-1], found(1, first, last)[0][-1]] == [0, 3], "what is often hit comes last"
    assert found(0, first, last) == found(0, first) != found(1, first, last)
    assert found(0, (1, 1, 1, 1)) == found(0)
    assert alike_in_all_shards(make_config(shards=2, order={"kind": kind, "probabilities": (first,)}))
    assert not alike_in_all_shards(make_config(shards=2, order={"kind": kind, "probabilities": (first, last)}))


def test_cyclic_is_quick_for_many_slices(make_config: Callable[..., Config]) -> None:
    assert len(set(orders(make_config(slices=64, budget=100), 0))) == 100


@pytest.mark.parametrize("slices", range(3, 9))
def test_every_set_of_slices_is_a_prefix_of_a_chain(slices: int) -> None:
    found = maximal_chains(slices)
    prefixes = {frozenset(order[:length]) for order in found for length in range(slices + 1)}
    assert len(found) == len(set(found)) == comb(slices, slices // 2)
    assert prefixes == {frozenset(s) for size in range(slices + 1) for s in combinations(range(slices), size)}


@pytest.mark.parametrize(("slices", "stages"), [(4, 22), (6, 101), (8, 442)])
def test_chains_share_as_many_stages_as_full_orders_can(slices: int, stages: int) -> None:
    prefixes = {order[:length] for order in maximal_chains(slices) for length in range(1, slices + 1)}
    # Depth d needs C(L, d) nodes up to the middle; from there on no node can end, so their count cannot fall.
    least = sum(comb(slices, min(depth, slices // 2)) for depth in range(1, slices + 1))
    assert len(prefixes) == stages == least


def _slow_greedy(slices: int, budget: int) -> list[tuple[int, ...]]:
    """The rule of `chain_orders` told plainly: try every order, walk every history of deletions."""

    def depth(order: tuple[int, ...], deleted: frozenset[int]) -> int:
        return next((i for i, s in enumerate(order) if s in deleted), slices)

    histories: dict[frozenset[int], int] = {}  # deleted set -> weight, in units of L^-L
    words: dict[frozenset[int], int] = {frozenset(): 1}
    for r in range(1, slices + 1):
        longer: dict[frozenset[int], int] = {}
        for hit, count in words.items():
            for s in range(slices):
                longer[hit | {s}] = longer.get(hit | {s}, 0) + count
        words = longer
        for hit, count in words.items():
            histories[hit] = histories.get(hit, 0) + count * slices ** (slices - r)
    left = list(maximal_chains(slices))
    chosen: list[tuple[int, ...]] = []
    while left and len(chosen) < budget:
        best = max(
            left,
            key=lambda order: sum(
                weight * max(depth(each, hit) for each in [*chosen, order]) for hit, weight in histories.items()
            ),
        )  # the first of equals
        chosen.append(best)
        left.remove(best)
    return chosen


@pytest.mark.parametrize("slices", [1, 2, 3, 4, 5])
def test_chains_are_chosen_as_a_slow_search_chooses(slices: int) -> None:
    assert list(chain_orders(slices, 99)) == _slow_greedy(slices, 99)


def test_too_many_slices_for_chains_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"at most 12 slices .* got 13"):
        maximal_chains(13)


def test_random_depends_on_seed_and_shard_only(make_config: Callable[..., Config]) -> None:
    config = make_config(slices=8, budget=5, kind="random", seed=1)
    assert orders(config, 0) == orders(make_config(shards=7, slices=8, budget=5, kind="random", seed=1), 0)
    assert orders(config, 0) != orders(config, 1)
    assert orders(config, 0) != orders(make_config(slices=8, budget=5, kind="random", seed=2), 0)


def test_orders_are_frozen_for_ever(make_config: Callable[..., Config]) -> None:
    # Another value here means that existing runs would train again from nothing.
    assert orders(make_config(slices=4, budget=6), 0) == (
        (0, 1, 2, 3),
        (2, 3, 0, 1),
        (1, 2, 3, 0),
        (3, 0, 1, 2),
        (0, 2, 3, 1),
        (2, 0, 1, 3),
    )
    assert orders(make_config(slices=4, budget=6, kind="chains"), 0) == (
        (0, 1, 2, 3),
        (2, 3, 0, 1),
        (1, 2, 3, 0),
        (3, 0, 1, 2),
        (2, 0, 3, 1),
        (1, 3, 0, 2),
    )
    assert orders(make_config(slices=6, budget=2, kind="random", seed=7), 3) == ((3, 1, 2, 4, 5, 0), (1, 5, 4, 0, 2, 3))


def test_random_reaches_all_orders_about_equally(make_config: Callable[..., Config]) -> None:
    firsts = [orders(make_config(slices=3, budget=1, kind="random"), shard)[0] for shard in range(1200)]
    counts = [firsts.count(order) for order in permutations(range(3))]
    # 200 each; chi-squared with 5 degrees of freedom exceeds 20.5 once in 1,000. The seed is fixed.
    assert sum((count - 200) ** 2 / 200 for count in counts) < 20.5


def test_explicit_orders_are_taken_as_they_are(make_config: Callable[..., Config]) -> None:
    given_orders = ((2, 0, 1, 3), (0, 1, 2, 3))
    assert orders(make_config(budget=2, kind="explicit", sequences=given_orders), 5) == given_orders
