"""Order and packing of records, seeds, schedule and layer groups: pure, by the thousand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.config.schema import Optimizer
from s3t_ray.errors import ConfigError
from s3t_ray.train.batches import epoch_order, pack, pad_groups, steps_in_epoch
from s3t_ray.train.layer_groups import depth_of_layer, layer_group, layer_index
from s3t_ray.train.learning_rate import learning_rate
from s3t_ray.train.seeds import StagePlace

PLACE = StagePlace(seed=1, shard=2, slices=(3, 0))
lengths = st.lists(st.integers(1, 400), min_size=1, max_size=40)


@settings(max_examples=300)
@given(lengths, st.integers(1, 1000), st.integers(1, 5))
def test_packing_places_every_record_once_within_the_limit(sizes: list[int], limit: int, ranks: int) -> None:
    plan = pack(sizes, limit, ranks)
    groups = [group for rank in plan for group in rank]
    assert sorted(index for group in groups for index in group) == list(range(len(sizes)))
    assert len(plan) == ranks and len({len(rank) for rank in plan}) == 1
    assert all(len(group) <= 1 or sum(sizes[index] for index in group) <= limit for group in groups)
    assert all(group == sorted(group) for group in groups)


@settings(max_examples=300)
@given(lengths, st.integers(1, 1000), st.integers(1, 5))
def test_padding_places_every_record_once_within_the_limit(sizes: list[int], limit: int, ranks: int) -> None:
    plan = pad_groups(sizes, limit, ranks)
    groups = [group for rank in plan for group in rank]
    assert sorted(index for group in groups for index in group) == list(range(len(sizes)))
    assert len(plan) == ranks and len({len(rank) for rank in plan}) == 1
    assert all(len(group) <= 1 or len(group) * max(sizes[index] for index in group) <= limit for group in groups)


def test_packing_needs_no_more_micro_batches_than_it_must_and_balances_ranks() -> None:
    assert pack([100] * 8, 400, 1) == [[[0, 2, 4, 6], [1, 3, 5, 7]]]
    two_ranks = pack([100] * 8, 1000, 2)
    assert [sum(len(group) for group in rank) for rank in two_ranks] == [4, 4]


@given(st.lists(st.text(max_size=8), unique=True, min_size=1, max_size=30), st.integers(0, 5), st.data())
def test_removing_a_record_leaves_the_order_of_the_others(ids: list[str], epoch: int, data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(ids))
    order = [ids[index] for index in epoch_order(ids, PLACE, epoch)]
    shuffled = data.draw(st.permutations([name for name in ids if name != gone]))
    assert [shuffled[index] for index in epoch_order(shuffled, PLACE, epoch)] == [
        name for name in order if name != gone
    ]


def test_epochs_and_places_differ() -> None:
    ids = [str(number) for number in range(50)]
    elsewhere = [StagePlace(2, 2, (3, 0)), StagePlace(1, 0, (3, 0)), StagePlace(1, 2, (0, 3)), StagePlace(1, 2, (30,))]
    orders = [epoch_order(ids, PLACE, 0), epoch_order(ids, PLACE, 1), *(epoch_order(ids, at, 0) for at in elsewhere)]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_seeds_differ_by_every_part_and_suit_torch() -> None:
    seeds = [PLACE.dropout(0, 0), PLACE.dropout(1, 0), PLACE.dropout(0, 1), PLACE.initial("a"), PLACE.initial("b")]
    seeds += [
        StagePlace(1, 2, (3,)).initial("a"),
        StagePlace(1, 23, ()).initial("a"),
        StagePlace(12, 3, ()).initial("a"),
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(("records", "size", "steps"), [(0, 4, 0), (1, 4, 1), (8, 4, 2), (9, 4, 3)])
def test_no_record_is_dropped_from_an_epoch(records: int, size: int, steps: int) -> None:
    assert steps_in_epoch(records, size) == steps


@given(st.sampled_from(["constant", "linear", "cosine"]), st.integers(1, 60), st.floats(0, 0.99))
def test_the_rate_rises_to_its_peak_and_never_again(schedule: str, steps: int, warmup: float) -> None:
    optimizer = Optimizer(lr=0.5, schedule=schedule, warmup=warmup)
    rates = [learning_rate(step, steps, optimizer) for step in range(steps)]
    assert all(0 < rate <= 0.5 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_the_rates_of_a_known_schedule() -> None:
    optimizer = Optimizer(lr=1.0, schedule="linear", warmup=0.5)
    assert [learning_rate(step, 4, optimizer) for step in range(4)] == [0.5, 1.0, 1.0, 0.5]
    assert learning_rate(2, 4, Optimizer(lr=1.0, schedule="cosine")) == pytest.approx(0.5)


@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 9))
def test_groups_cover_the_top_layers_once(depths: int, size: int, below: int) -> None:
    layers = depths * size + below
    groups = [layer_group(layers, size, depth) for depth in range(1, depths + 1)]
    assert [layer for group in reversed(groups) for layer in group] == list(range(below, layers))
    assert all(depth_of_layer(layers, size, layer) == depth for depth, group in enumerate(groups, 1) for layer in group)


def test_a_group_below_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs 40 layers, but the model has 32"):
        layer_group(32, 8, 5)
    with pytest.raises(ConfigError, match="depth"):
        layer_group(32, 8, 0)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("model.layers.3.mlp.up_proj", 3),
        ("model.layers.31.mlp.up_proj", 31),
        ("model.layers.3", 3),
        ("model.layers", None),
        ("model.layers.x", None),
        ("vision.model.layers.3.mlp", None),
        ("model.layers.3x.mlp", None),
        ("modelxlayers.3.mlp", None),
    ],
)
def test_layers_are_matched_by_whole_path_components(name: str, index: int | None) -> None:
    assert layer_index(name, "model.layers") == index
