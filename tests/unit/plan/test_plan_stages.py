"""Stage identity and shard plans: the invariants of their docstrings, against plain models."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.plan.identity import digest_fields, recipe_digest, stage_id
from s3t_ray.plan.stages import ShardPlan, compare, plan_shard

ORDERS = st.integers(1, 5).flatmap(
    lambda slices: st.lists(st.permutations(range(slices)).map(tuple), min_size=1, max_size=5, unique=True)
)
fast = settings(max_examples=150, deadline=None)


def _digests(orders: list[tuple[int, ...]]) -> dict[int, str]:
    return {s: f"digest {s}" for s in orders[0]}


def test_names_are_frozen_for_ever() -> None:
    # Other values here mean that existing runs would find none of their stages.
    assert recipe_digest({"b": 1, "a": [1.5, None, "é"]}) == (
        "84418fb1e96e878c0290398156cd3769cabe3c23caecfc9f02f7defab7701503"
    )
    assert stage_id("r", None, 0, 3, "d") == ("0d7414331cab08ccc1e80b6a4eb0b53cad88cccff6f01e84b1fa5196113df108")


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
@fast
def test_different_fields_never_feed_the_same_bytes(left: list[str], right: list[str]) -> None:
    assert (digest_fields(*left) == digest_fields(*right)) == (left == right)


def test_fields_are_kept_apart_however_they_are_cut() -> None:
    assert (
        len({digest_fields("ab", "c"), digest_fields("a", "bc"), digest_fields("abc"), digest_fields("abc", "")}) == 4
    )


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=5))
@fast
def test_recipe_ignores_the_order_of_its_fields(recipe: dict[str, object]) -> None:
    assert recipe_digest(recipe) == recipe_digest(dict(reversed(recipe.items())))
    assert recipe_digest(recipe) != recipe_digest({**recipe, "one more": 0})


def test_a_recipe_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        recipe_digest({"lr": float("nan")})


def test_every_part_of_a_stage_is_in_its_name() -> None:
    variants = [
        stage_id("r", None, 0, 0, "d"),
        stage_id("R", None, 0, 0, "d"),
        stage_id("r", "p", 0, 0, "d"),
        stage_id("r", None, 1, 0, "d"),
        stage_id("r", None, 0, 1, "d"),
        stage_id("r", None, 0, 0, "D"),
        stage_id("r", None, 11, 1, "d"),
        stage_id("r", None, 1, 11, "d"),
    ]
    assert len(set(variants)) == len(variants)


@given(ORDERS)
@fast
def test_stages_are_exactly_the_different_prefixes(orders: list[tuple[int, ...]]) -> None:
    plan = plan_shard(3, orders, _digests(orders), "recipe")
    prefixes = {order[:length] for order in orders for length in range(1, len(order) + 1)}
    assert {stage.slices for stage in plan.stages.values()} == prefixes
    assert len(plan.stages) == len(prefixes)
    for name, stage in plan.stages.items():
        assert stage.id == name and stage.shard == 3 and stage.depth == len(stage.slices)
        assert stage.parent is None or stage.parent in plan.stages
    for order, chain in zip(orders, plan.chains, strict=True):
        assert [plan.stages[name].slices for name in chain] == [order[:n] for n in range(1, len(order) + 1)]
        assert plan.stages[chain[-1]].chain == chain


@given(ORDERS, st.data())
@fast
def test_a_deletion_renames_exactly_the_stages_at_and_after_its_slice(
    orders: list[tuple[int, ...]], data: st.DataObject
) -> None:
    hit = data.draw(st.sampled_from(orders[0]))
    digests = _digests(orders)
    before = plan_shard(0, orders, digests, "recipe")
    after = plan_shard(0, orders, {**digests, hit: "another"}, "recipe")
    for order, old, new in zip(orders, before.chains, after.chains, strict=True):
        position = order.index(hit)
        assert old[:position] == new[:position]
        assert all(a != b for a, b in zip(old[position:], new[position:], strict=True))
    delta = compare(after, before.stages)
    assert delta.stale == {s.id for s in before.stages.values() if hit in s.slices}
    assert delta.missing == {s.id for s in after.stages.values() if hit in s.slices}


@given(ORDERS, st.data())
@fast
def test_compare_against_sets(orders: list[tuple[int, ...]], data: st.DataObject) -> None:
    plan = plan_shard(0, orders, _digests(orders), "recipe")
    have = data.draw(st.sets(st.sampled_from([*plan.stages, "stale 1", "stale 2"])))
    delta = compare(plan, have)
    assert delta.stale == {name for name in have if name.startswith("stale")}
    assert delta.missing == {name for name in plan.stages if name not in have}
    assert {stage.id for stage in delta.ready} == {
        name for name in delta.missing if plan.stages[name].parent is None or plan.stages[name].parent in have
    }
    assert all(a.depth <= b.depth for a, b in pairwise(delta.ready))


@given(ORDERS, st.data())
@fast
def test_live_depth_counts_stages_without_a_gap(orders: list[tuple[int, ...]], data: st.DataObject) -> None:
    plan = plan_shard(0, orders, _digests(orders), "recipe")
    have = data.draw(st.sets(st.sampled_from(sorted(plan.stages))))
    slow = []
    for chain in plan.chains:
        depth = 0
        while depth < len(chain) and chain[depth] in have:
            depth += 1
        slow.append(depth)
    assert plan.depths(have) == tuple(slow) == plan.depths(list(have))
    deepest = plan.deepest(have)
    assert (deepest.depth if deepest else 0) == max(slow)
    if deepest:
        first = plan.chains[slow.index(max(slow))]
        assert deepest.chain == first[: deepest.depth] and set(deepest.chain) <= have


def test_a_plan_depends_on_nothing_but_its_arguments(make_plan: Callable[..., ShardPlan]) -> None:
    orders = ((0, 1, 2), (1, 2, 0))
    reordered = {2: "d2", 0: "d0", 1: "d1"}
    assert make_plan(orders) == make_plan(orders, digests=reordered) == make_plan(tuple(orders))


def test_names_do_not_depend_on_which_other_orders_there_are(make_plan: Callable[..., ShardPlan]) -> None:
    alone = make_plan(((1, 2, 0),))
    assert alone.stages.keys() < make_plan(((0, 1, 2), (1, 2, 0))).stages.keys()


def test_slices_of_two_digits_are_not_mistaken(make_plan: Callable[..., ShardPlan]) -> None:
    twelve = tuple(range(12))
    turned = (*twelve[1:], 0)
    plan = make_plan((twelve, turned, (11, 1, *(s for s in twelve if s not in (1, 11)))))
    assert len(plan.stages) == 36
    assert len({stage.slices for stage in plan.stages.values()}) == 36
    hit = make_plan(plan.orders, digests={s: f"d{s}" if s != 11 else "changed" for s in twelve})
    # Slice 11 is last, next to last and first; slice 1 must not be taken for it.
    assert hit.depths(plan.stages) == (11, 10, 0)


def test_empty_slices_at_two_places_have_stages_of_their_own(make_plan: Callable[..., ShardPlan]) -> None:
    empty = {0: "same", 1: "same"}
    plan = make_plan(((0, 1), (1, 0)), digests=empty)
    assert len(plan.stages) == 4
    assert not plan.stages.keys() & make_plan(((0, 1), (1, 0)), shard=1, digests=empty).stages.keys()


@given(digests=st.lists(st.text(), min_size=3, max_size=3), recipe=st.text(), shard=st.integers(0, 10**6))
def test_a_plan_names_its_stages_as_stage_id_does(digests: list[str], recipe: str, shard: int) -> None:
    plan = plan_shard(shard, ((2, 0, 1),), dict(enumerate(digests)), recipe)
    name = None
    for slice_index, planned in zip((2, 0, 1), plan.chains[0], strict=True):
        name = stage_id(recipe, name, shard, slice_index, digests[slice_index])
        assert planned == name
        assert plan.stages.parent(name) == plan.stages[name].parent
