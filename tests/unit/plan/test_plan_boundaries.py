"""Which boundaries to store: against trying every choice and walking every visit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.plan.boundaries import (
    Rates,
    best_depths,
    boundaries,
    choose_depths,
    rates,
    states_seconds,
    stored_state_tokens,
)
from s3t_ray.plan.cost import plan_cost, stage_cost
from s3t_ray.plan.overview import plan_overview
from s3t_ray.plan.work import Work, describe_work, forward_flops_per_token

SHAPE = ModelShape(layers=12, hidden=64, intermediate=128, heads=4, kv_heads=4, vocabulary=300)
ORDERS = ((0, 1, 2, 3), (1, 2, 3, 0), (1, 2, 0, 3))


@pytest.fixture(scope="module")
def work(make_config: Callable[..., Config]) -> Work:
    """Twelve layers in four groups of 3: stages 1 to 3 are entered at layers 9, 6 and 3."""
    config = make_config(shards=2, slices=4, lora={"layers_per_group": 3}, optimizer={"epochs": 2})
    return describe_work(config, 80, 50.0, 0.8, SHAPE)


def walked_seconds(work: Work, by_shard: Sequence[Sequence[Sequence[int]]], speed: Rates, stored: set[int]) -> float:
    """Every stage, epoch, slice and layer, one after another, with a store that is filled when a stage needs it."""
    layer = forward_flops_per_token(work) / speed.flops_per_second
    move = work.shape.hidden * work.activation_bytes / speed.bytes_per_second
    seconds = 0.0
    for orders in by_shard:
        held: set[tuple[int, int]] = set()  # slice, boundary
        prefixes = {tuple(order[:depth]) for order in orders for depth in range(1, len(order) + 1)}
        for prefix in sorted(prefixes, key=lambda each: (len(each), each)):
            own = work.boundary(len(prefix))
            kept = sorted(b for b in map(work.boundary, stored) if 0 < b <= own)
            for piece in prefix:
                missing = [b for b in kept if (piece, b) not in held]
                if kept and kept[-1] in missing:
                    origin = max((b for b in kept if b < missing[0]), default=0)
                    seconds += work.slice_tokens * (missing[-1] - origin) * layer
                    seconds += work.slice_tokens * len(missing) * move
                    held |= {(piece, b) for b in missing}
                for _ in range(work.epochs):
                    start = kept[-1] if kept else 0
                    seconds += work.slice_tokens * ((own - start) * layer + (move if start else 0.0))
    return seconds


@pytest.mark.parametrize("stored", [set(), {1}, {3}, {1, 3}, {1, 2, 3}])
def test_seconds_are_those_of_every_visit(work: Work, stored: set[int]) -> None:
    by_shard = [ORDERS, ((3, 2, 1, 0),)]
    speed = Rates(1e9, 1e5)
    found = states_seconds(work, by_shard, speed, frozenset(stored))
    assert found == pytest.approx(walked_seconds(work, by_shard, speed, stored))


@settings(max_examples=300, deadline=None)
@given(
    layers=st.integers(8, 14),
    epochs=st.integers(1, 4),
    flops=st.floats(1e6, 1e10),
    transfer=st.floats(1e3, 1e8),
    limit=st.none() | st.floats(0, 3e7),
    orders=st.lists(st.permutations(range(4)).map(tuple), min_size=1, max_size=4, unique=True),
)
def test_no_choice_is_better(
    work: Work,
    layers: int,
    epochs: int,
    flops: float,
    transfer: float,
    limit: float | None,
    orders: list[tuple[int, ...]],
) -> None:
    here = replace(work, shape=SHAPE.model_copy(update={"layers": layers}), layers_per_group=2, epochs=epochs)
    by_shard, speed = [tuple(orders)] * 2, Rates(flops, transfer)
    possible = [depth for depth in range(1, 5) if here.boundary(depth) > 0]
    token_bytes = here.shape.hidden * here.activation_bytes

    def fits(chosen: tuple[int, ...]) -> bool:
        used = stored_state_tokens(replace(here, stored_depths=chosen), by_shard) * token_bytes
        return limit is None or used <= limit

    subsets = [chosen for count in range(len(possible) + 1) for chosen in combinations(possible, count)]
    best = min(states_seconds(here, by_shard, speed, frozenset(chosen)) for chosen in subsets if fits(chosen))
    found = best_depths(here, by_shard, speed, limit)
    assert fits(found) and set(found) <= set(possible)
    assert states_seconds(here, by_shard, speed, frozenset(found)) == pytest.approx(best)


def test_fast_storage_stores_all_slow_storage_none_and_between_them_a_mix(work: Work) -> None:
    by_shard = [ORDERS] * 2
    found = [best_depths(work, by_shard, Rates(1e9, transfer), None) for transfer in (1e12, 1e6, 1.0)]
    assert found[0] == (1, 2, 3) and found[2] == ()
    assert 0 < len(found[1]) < 3
    assert best_depths(work, by_shard, Rates(1e9, 1e12), 0.0) == ()


def test_a_stage_is_lifted_from_the_nearest_stored_boundary(work: Work) -> None:
    here = replace(work, stored_depths=(1, 3))
    assert [here.start_layer(depth) for depth in (1, 2, 3, 4)] == [9, 3, 3, 0]
    per_layer = forward_flops_per_token(here)
    cost = stage_cost(here, 2)
    assert cost.forward_flops == pytest.approx(cost.tokens * per_layer * (12 - 3))
    assert stage_cost(here, 2, stored=True).forward_flops == pytest.approx(cost.tokens * per_layer * 6)
    assert stage_cost(here, 2, stored=False).forward_flops == pytest.approx(cost.tokens * per_layer * 12)
    filled = 2 * 9 + (3 - 2) * 3 + (4 - 3) * 3  # slices x layers: those of stage 1 up to 9, the others up to 3
    assert plan_cost(here, [ORDERS]).hidden_fill_flops == pytest.approx(filled * 500 * per_layer)


def test_each_line_says_what_storing_its_boundary_saves(work: Work) -> None:
    by_shard, speed = [ORDERS] * 2, Rates(1e9, 1e6)
    lines = boundaries(replace(work, stored_depths=(1, 3)), by_shard, speed)
    assert [(line.depth, line.layer, line.stored, line.start_layer) for line in lines] == [
        (1, 9, True, 9),
        (2, 6, False, 3),
        (3, 3, True, 3),
    ]
    # Slices of 500 tokens that some order has among its first one, two, three: 2, 3, 4.
    assert [line.bytes for line in lines] == [2 * slices * 500 * 64 * 4 for slices in (2, 3, 4)]
    with_all = states_seconds(work, by_shard, speed, frozenset((1, 2, 3)))
    as_is = states_seconds(work, by_shard, speed, frozenset((1, 3)))
    assert lines[1].saved_seconds == pytest.approx(as_is - with_all)
    assert lines[0].saved_seconds == pytest.approx(states_seconds(work, by_shard, speed, frozenset((3,))) - as_is)


def test_the_config_decides_and_the_rates_are_given_or_assumed(make_config: Callable[..., Config]) -> None:
    def config(**more: object) -> Config:
        return make_config(shards=2, slices=4, lora={"layers_per_group": 3}, **more)

    def chosen(given: Config) -> tuple[int, ...]:
        return choose_depths(given, describe_work(given, 80, 50.0, 0.8, SHAPE), [ORDERS] * 2)

    assert chosen(config()) == (1, 2, 3)
    assert chosen(config(engine={"stored_boundaries": (4, 2)})) == (2,)  # the lowest group starts from the embeddings
    assert chosen(config(engine={"hidden_states": "recompute"})) == ()
    slow = {"uri": "run", "megabytes_per_second": 1e-3}
    assert chosen(config(engine={"stored_boundaries": "auto"}, storage=slow)) == ()
    fast = {"uri": "run", "megabytes_per_second": 1e6}
    assert chosen(config(engine={"stored_boundaries": "auto"}, storage=fast)) == (1, 2, 3)
    assert chosen(config(engine={"stored_boundaries": "auto"}, storage={**fast, "hidden_states_gib": 0})) == ()
    assert rates(config(storage=slow, workers={"gigaflops_per_rank": 7})) == Rates(7e9, 1e3)
    assert rates(config(engine={"threads": 2})) == Rates(1e11, 1e9)
    on_gpu = {"workers": {"gpus_per_rank": 1}, "engine": {"precision": "bfloat16"}}
    assert rates(config(**on_gpu)).flops_per_second == 3e14
    found = plan_overview(config(engine={"stored_boundaries": "auto"}, storage=fast), 80, 50.0, 0.8, SHAPE)
    assert [line.stored for line in found.boundaries] == [True] * 3 and found.work.stored_depths == (1, 2, 3)
    assert plan_overview(config(engine={"hidden_states": "recompute"}), 80, 50.0, 0.8, SHAPE).boundaries == ()


def test_many_groups_and_a_limit_are_decided_together(make_config: Callable[..., Config]) -> None:
    shape = SHAPE.model_copy(update={"layers": 126})
    config = make_config(shards=5, slices=63, lora={"layers_per_group": 2})
    work = describe_work(config, 10_000, 200.0, 0.8, shape)
    one = tuple(range(63))
    chosen = best_depths(work, [(one,)] * 5, Rates(1e9, 1e6), 2e9)
    used = stored_state_tokens(replace(work, stored_depths=chosen), [(one,)] * 5) * 64 * 4
    assert chosen and used <= 2e9
