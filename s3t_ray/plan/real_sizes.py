"""Costs and forecasts of a plan whose slices are not all of one size.

In: the orders of each shard, the records of each slice. Out: numbers of stages by depth, each stage counted by how much
more or less than the average slices it trains on, so that what is linear in tokens comes out for the real sizes. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

Orders = Sequence[Sequence[int]]
Sizes = Sequence[Sequence[int]]
"""Records by shard and slice."""


def sized_stages(orders_by_shard: Sequence[Orders], sizes: Sizes, *, shared: bool = True) -> dict[int, float]:
    """Stages by depth, in stages of average size. `shared`: a prefix that several sequences share counts once."""
    return _sum(orders_by_shard, sizes, shared=shared, chances=None)


def sized_healing(orders_by_shard: Sequence[Orders], sizes: Sizes) -> dict[int, float]:
    """The same for the stages that one deletion makes stale, each record being equally likely."""
    total = sum(map(sum, sizes))
    chances = [[size / total for size in shard] for shard in sizes]
    return _sum(orders_by_shard, sizes, shared=True, chances=chances)


def deletion_chances(sizes: Sizes) -> list[list[float]] | None:
    """Chance that a deletion falls in each slice; None where one is empty, for it could never be hit."""
    total = sum(map(sum, sizes))
    if not all(size for shard in sizes for size in shard):
        return None
    return [[size / total for size in shard] for shard in sizes]


def _sum(
    orders_by_shard: Sequence[Orders], sizes: Sizes, *, shared: bool, chances: Sequence[Sequence[float]] | None
) -> dict[int, float]:
    mean = sum(map(sum, sizes)) / sum(map(len, sizes))
    found: dict[int, float] = defaultdict(float)
    if not mean:
        return found
    learned: dict[int, np.ndarray] = {}  # shards mostly have the very same orders
    for shard, orders in enumerate(orders_by_shard):
        if id(orders) not in learned:
            learned[id(orders)] = _learned(orders, len(sizes[shard]), shared)
        learned_NL = learned[id(orders)]
        weights_N = learned_NL @ np.asarray(sizes[shard], dtype=float)
        if chances is not None:
            weights_N = weights_N * (learned_NL @ np.asarray(chances[shard]))
        by_depth = np.bincount(learned_NL.sum(axis=1), weights=weights_N)
        for depth in range(1, len(by_depth)):
            found[depth] += float(by_depth[depth]) / (depth * mean)
    return dict(found)


def _learned(orders: Orders, slices: int, shared: bool) -> np.ndarray:
    """int64 [stages, slices]: 1 where a stage trains on the slice."""
    prefixes = [tuple(order[:length]) for order in orders for length in range(1, len(order) + 1)]
    if shared:
        prefixes = list(dict.fromkeys(prefixes))
    learned_NL = np.zeros((len(prefixes), slices), dtype=np.int64)
    for at, prefix in enumerate(prefixes):
        learned_NL[at, list(prefix)] = 1
    return learned_NL
