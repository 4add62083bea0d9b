"""Deletion streams as arrays, against a loop over sets of slices."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from benchlib.deletion_streams import (
    ShardModels,
    gap,
    healed_streams,
    hit_masks,
    kept_at_least,
    live_prefixes,
    mean_depths,
    scores,
    skewed_streams,
    uniform_streams,
)
from benchlib.rival_costs import healing_flops, training_flops
from hypothesis import given, settings
from hypothesis import strategies as st


def by_hand(stream: np.ndarray, shards: list[ShardModels]) -> tuple[list[float], list[float]]:
    """Mean depth and accuracy against class 1 after each deletion, the slow and obvious way."""
    hit: list[set[int]] = [set() for _ in shards]
    depths, values = [], []
    for step in range(len(stream) + 1):
        if step:
            hit[stream[step - 1][0]].add(int(stream[step - 1][1]))
        live, total = [], 0
        for shard, gone in zip(shards, hit, strict=True):
            best: tuple[int, ...] = ()
            for order in shard.orders:
                prefix: list[int] = []
                for index in order:
                    if index in gone:
                        break
                    prefix.append(index)
                if len(prefix) > len(best):
                    best = tuple(prefix)
            total += len(best)
            if best:
                live.append(shard.outputs[best])
        mean = np.sum(live, axis=0) / len(live) if live else np.zeros((4, 2))
        depths.append(total / len(shards))
        values.append(float((mean.argmax(1) == 1).mean()))
    return depths, values


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 3), st.integers(1, 4), st.integers(0, 9))
def test_arrays_agree_with_the_loop(data: st.DataObject, shards: int, slices: int, deletions: int) -> None:
    every = list(permutations(range(slices)))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    models = []
    for _ in range(shards):
        orders = tuple(data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=4)))
        prefixes = {order[:depth] for order in orders for depth in range(1, slices + 1)}
        models.append(ShardModels(orders, {prefix: random.normal(size=(4, 2)) for prefix in prefixes}))
    streams = uniform_streams(5, deletions, shards, slices, data.draw(st.integers(0, 1000)))
    masks = hit_masks(streams, shards)
    depths = mean_depths(masks, [model.orders for model in models])
    values = scores(masks, models, lambda mean: float((mean.argmax(1) == 1).mean()))
    for number, stream in enumerate(streams):
        slow_depths, slow_values = by_hand(stream, models)
        assert depths[number].tolist() == pytest.approx(slow_depths)
        assert values[number].tolist() == pytest.approx(slow_values)


def test_the_first_of_equal_sequences_answers() -> None:
    assert live_prefixes([(0, 1), (1, 0)]) == ((0, 1), (1,), (0,), ())
    assert live_prefixes([(1, 0), (0, 1)])[0] == (1, 0)


def test_each_combination_of_models_is_scored_once() -> None:
    calls = []
    outputs: dict[tuple[int, ...], np.ndarray] = {(0,): np.ones((1, 1)), (0, 1): np.ones((1, 1))}
    models = [ShardModels(((0, 1),), outputs)] * 2

    def score(mean: np.ndarray) -> float:
        calls.append(mean)
        return 0.0

    scores(hit_masks(uniform_streams(500, 10, 2, 2, 0), 2), models, score)
    assert len(calls) <= 3**2  # whole, one slice, dead, of each shard


def test_skewed_streams_hit_the_first_slice_the_most() -> None:
    places = skewed_streams(2000, 5, 3, 4, 0)[..., 1]
    counts = np.bincount(places.ravel(), minlength=4) / places.size
    assert counts == pytest.approx(np.array([12, 6, 4, 3]) / 25, abs=0.02)
    assert uniform_streams(10, 5, 3, 4, 0).tolist() == uniform_streams(10, 5, 3, 4, 0).tolist()


def test_the_gap_is_that_of_independent_sequences() -> None:
    random = np.random.default_rng(0)
    slices, depth, deletions, sequences, trials = 6, 2, 5, 3, 40_000
    order = np.argsort(random.random((trials, sequences, slices)), axis=2)[..., :depth]
    # Independent streams for each sequence, as the theorem has it.
    own = random.integers(slices, size=(trials, sequences, deletions))
    lost = (order[:, :, :, None] == own[:, :, None, :]).any(axis=(2, 3))
    measured = lost[:, 0].mean() - lost.all(axis=1).mean()
    assert measured == pytest.approx(gap(depth, slices, deletions, sequences), abs=0.01)
    assert 1 - lost[:, 0].mean() == pytest.approx(kept_at_least(depth, slices, deletions), abs=0.01)
    assert gap(2, 6, 5, 1) == 0.0
    assert gap(1, 6, 5, 100) == gap(1, 6, 5, 6)


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_a_policy_heals_the_shards_below_its_floor(seed: int, floor: int) -> None:
    """Against a loop over sets; the FLOPs of a healing are those of the stages that learned a slice hit."""
    orders = [((0, 1, 2), (1, 2, 0)), ((2, 1, 0),)]
    streams = uniform_streams(2, 12, 2, 3, seed)
    found = healed_streams(streams, orders, floor)
    by_depth = [1.0, 10.0, 100.0]
    for number, stream in enumerate(streams):
        hit: list[set[int]] = [set(), set()]
        for step, (struck, index) in enumerate(stream, start=1):
            hit[struck].add(int(index))
            for shard, own in enumerate(orders):
                live = [order[:depth] for order in own for depth in (1, 2, 3) if not hit[shard] & set(order[:depth])]
                below = max(map(len, live), default=0) < floor
                stale = {order[:depth] for order in own for depth in (1, 2, 3) if hit[shard] & set(order[:depth])}
                mask = int(found.healed[number, step, shard])
                assert mask == (sum(1 << at for at in hit[shard]) if below else 0)
                if below:
                    assert healing_flops(own, by_depth)[mask] == sum(by_depth[len(prefix) - 1] for prefix in stale)
                    hit[shard] = set()
                assert int(found.masks[number, step, shard]) == sum(1 << at for at in hit[shard])
    assert training_flops(((0, 1), (0, 2)), by_depth) == 1 + 2 * 10


def test_the_floor_of_all_slices_heals_every_deletion() -> None:
    streams = uniform_streams(3, 20, 2, 3, 0)
    healing = healed_streams(streams, [((0, 1, 2), (1, 2, 0))] * 2, 3)
    assert not healing.masks.any()
    assert ((healing.healed > 0).sum(axis=2)[:, 1:] == 1).all()
