"""Evaluates many deletion streams as arrays: what a run without healing serves after each deletion.

In: the orders of each shard, the outputs of each live model on the test set, and streams of (shard, slice). Out: depths
and scores after 0..K deletions. A shard's state is the set of slices hit so far, as a bit mask. Each state has one live
model, and each combination of live models is scored once, however many streams reach it. Pure numpy.

Legend: S streams, K deletions per stream, M shards, L slices, N test records, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Order = tuple[int, ...]
Score = Callable[[np.ndarray], float]
"""Maps the mean outputs [N x C] of the live models to one number."""


@dataclass(frozen=True)
class ShardModels:
    """The sequences of one shard, as orders of slices, and the outputs of each prefix's model: [N x C]."""

    orders: tuple[Order, ...]
    outputs: Mapping[Order, np.ndarray]


def uniform_streams(streams: int, deletions: int, shards: int, slices: int, seed: int) -> np.ndarray:
    """Deletions that hit all slices with equal probability, int [S x K x 2]: (shard, slice)."""
    random = np.random.default_rng(seed)
    return np.stack(
        [random.integers(shards, size=(streams, deletions)), random.integers(slices, size=(streams, deletions))],
        axis=-1,
    )


def skewed_streams(streams: int, deletions: int, shards: int, slices: int, seed: int) -> np.ndarray:
    """The same, with the slices of a shard hit in proportion to 1, 1/2, 1/3, ... (slice 0 most often)."""
    random = np.random.default_rng(seed)
    chances = 1 / np.arange(1, slices + 1)
    places = random.choice(slices, size=(streams, deletions), p=chances / chances.sum())
    return np.stack([random.integers(shards, size=(streams, deletions)), places], axis=-1)


def hit_masks(streams: np.ndarray, shards: int) -> np.ndarray:
    """Slices hit so far, as bits, int [S x K + 1 x M]; none before the first deletion."""
    count, deletions, _ = streams.shape
    own = streams[..., 0, None] == np.arange(shards)
    bits = np.where(own, np.left_shift(1, streams[..., 1])[..., None], 0)
    masks = np.zeros((count, deletions + 1, shards), dtype=np.int64)
    np.bitwise_or.accumulate(bits, axis=1, out=masks[:, 1:])
    return masks


def live_prefixes(orders: Sequence[Order]) -> tuple[Order, ...]:
    """By mask of slices hit: the longest prefix of a sequence that avoids them; ties go to the first sequence."""
    slices = len(orders[0])
    return tuple(_longest(orders, mask) for mask in range(1 << slices))


def _longest(orders: Sequence[Order], mask: int) -> Order:
    best: Order = ()
    for order in orders:
        spared = next((at for at, each in enumerate(order) if mask >> each & 1), len(order))
        if spared > len(best):
            best = order[:spared]
    return best


@dataclass(frozen=True)
class Healing:
    """The effect of a policy on deletion streams."""

    masks: np.ndarray  # int [S x K + 1 x M]: slices hit since a shard was last healed
    healed: np.ndarray  # int [S x K + 1 x M]: slices hit whose stages healing retrained at this step; 0: none


def healed_streams(streams: np.ndarray, orders_by_shard: Sequence[Sequence[Order]], floor: int) -> Healing:
    """Heal shards that fall below `floor` live stages immediately: L heals every deletion, 1 only dead shards."""
    count, deletions, _ = streams.shape
    shards = len(orders_by_shard)
    depths = [np.array([len(prefix) for prefix in live_prefixes(orders)]) for orders in orders_by_shard]
    now = np.zeros((count, shards), dtype=np.int64)
    masks, healed = (np.zeros((count, deletions + 1, shards), dtype=np.int64) for _ in range(2))
    for at in range(deletions):
        now[np.arange(count), streams[:, at, 0]] |= np.left_shift(1, streams[:, at, 1])
        below = np.stack([depth[now[:, shard]] < floor for shard, depth in enumerate(depths)], axis=1)
        healed[:, at + 1] = np.where(below, now, 0)
        now = np.where(below, 0, now)
        masks[:, at + 1] = now
    return Healing(masks, healed)


def mean_depths(masks: np.ndarray, orders_by_shard: Sequence[Sequence[Order]]) -> np.ndarray:
    """Depth served, averaged over shards, float [S x K + 1]."""
    depths = [np.array([len(prefix) for prefix in live_prefixes(orders)]) for orders in orders_by_shard]
    return np.mean([depth[masks[..., shard]] for shard, depth in enumerate(depths)], axis=0)


def scores(masks: np.ndarray, shards: Sequence[ShardModels], score: Score) -> np.ndarray:
    """Score of the ensemble of the live models, float [S x K + 1], without dead shards.

    If all shards are dead, the outputs are 0 for every class, like a base model that knows nothing about the task.
    """
    names = [live_prefixes(shard.orders) for shard in shards]
    picks = [{name: at for at, name in enumerate(dict.fromkeys(own))} for own in names]
    # Masks with the same live model are one state. The states of all shards are packed into one number, for fast
    # sorting.
    states = np.zeros(masks.shape[:-1], dtype=np.int64)
    for at, own in enumerate(names):
        states = states * len(picks[at]) + np.array([picks[at][name] for name in own])[masks[..., at]]
    distinct, where = np.unique(states, return_inverse=True)
    rows = np.unravel_index(distinct, tuple(len(own) for own in picks))
    models = [list(own) for own in picks]
    values = np.array(
        [_score_of([models[s][at] for s, at in enumerate(row)], shards, score) for row in zip(*rows, strict=True)]
    )
    return values[where.reshape(-1)].reshape(states.shape)


def _score_of(prefixes: Sequence[Order], shards: Sequence[ShardModels], score: Score) -> float:
    live = [shard.outputs[prefix] for shard, prefix in zip(shards, prefixes, strict=True) if prefix]
    shape = next(iter(shards[0].outputs.values())).shape
    return score(np.mean(live, axis=0) if live else np.zeros(shape))


def kept_at_least(depth: int, slices: int, deletions: int) -> float:
    """Probability that the first `depth` slices of a sequence survive this many uniform deletions in its shard."""
    return (1 - depth / slices) ** deletions


def gap(depth: int, slices: int, deletions: int, sequences: int) -> float:
    """The paper's gap between several independent sequences and one: zeta (1 - zeta^B').

    zeta is the probability that one sequence does not keep `depth` slices. B' is the number of additional sequences
    that differ in their first `depth` slices.
    """
    zeta = 1 - kept_at_least(depth, slices, deletions)
    further = min(sequences, _arrangements(slices, depth)) - 1
    return zeta * (1 - zeta**further)


def _arrangements(slices: int, depth: int) -> int:
    return int(np.prod(np.arange(slices - depth + 1, slices + 1)))
