"""Orders of slices read off a symmetric chain decomposition: the most depth that can survive.

After deletions in slices D a shard serves the longest prefix that avoids D, at most L - |D|
slices, and reaches it when some order has exactly the surviving slices as its first ones. The
subsets of L slices split into C(L, L//2) symmetric chains (de Bruijn, Tengbergen, Kruyswijk 1951;
here by the bracket matching of Greene and Kleitman 1976), each of which is a stretch of one order,
so C(L, L//2) orders reach it always; fewer cannot, since the sets of L//2 slices are an antichain.

In: L and B. Out: orders. Pure, exact integers: the same orders on every machine.
"""

from __future__ import annotations

from functools import lru_cache
from heapq import heapify, heappop, heappushpop
from itertools import combinations

import numpy as np

from s3t_ray.errors import ConfigError
from s3t_ray.plan.survival import prefix_masks, uniform_weights

MOST_SLICES = 12
"""Largest L for chains: 924 orders, chosen among in about a second."""


def maximal_chains(slices: int) -> tuple[tuple[int, ...], ...]:
    """All C(L, L//2) orders: every set of slices is a prefix of at least one.

    Read a set as brackets: a slice outside it opens, a slice in it closes. The matched slices are
    the same along a chain; the unmatched ones enter from the lowest up. So an order is the matched
    closing slices (the chain's smallest set), the unmatched, then the matched opening ones, each
    ascending. Ascending makes the way to a chain's smallest set one that other orders share too,
    which gives the fewest stages that full orders can have.
    """
    if slices > MOST_SLICES:
        raise ConfigError(
            f"order kind chains supports at most {MOST_SLICES} slices (then 924 orders), got {slices}",
            "use order kind cyclic or random, or fewer slices",
        )
    found = []
    for size in range(slices // 2 + 1):
        for smallest in combinations(range(slices), size):
            openings, unmatched = _match(smallest, slices)
            if openings is not None:
                found.append((*smallest, *unmatched, *openings))
    return tuple(found)


@lru_cache(maxsize=32)
def chain_orders(slices: int, budget: int) -> tuple[tuple[int, ...], ...]:
    """The first `budget` of `maximal_chains`, the most useful first; all of them when it is larger.

    The next order is the one that adds most to the sum, over 1..L uniform deletions, of the mean
    depth that survives; among equals the earliest. A smaller budget's orders are the first of a
    larger one's.
    """
    candidates = maximal_chains(slices)
    if slices == 1:
        return candidates
    masks = np.arange(2**slices)
    weights_S = uniform_weights(slices)[::-1]
    best_S = np.zeros(2**slices, dtype=np.int64)

    def depths(index: int) -> np.ndarray:
        """int64 [2^L]: depth of one order by surviving set."""
        prefixes = prefix_masks([candidates[index]])[0]
        inside = (masks & prefixes[:, None]) == prefixes[:, None]
        return np.asarray(inside.sum(axis=0), dtype=np.int64)

    def gain(index: int) -> int:
        return int((weights_S * np.maximum(depths(index) - best_S, 0)).sum())

    # Gains only shrink as orders are added (submodular), so an old gain is an upper bound: only
    # the top of the heap needs a fresh look (lazy greedy). Exact integers make it equal to a full
    # search, ties included.
    heap = [(-gain(index), index) for index in range(len(candidates))]
    heapify(heap)
    chosen: list[tuple[int, ...]] = []
    while heap and len(chosen) < budget:
        _, index = heappop(heap)
        fresh = (-gain(index), index)
        while heap and fresh > heap[0]:
            _, index = heappushpop(heap, fresh)
            fresh = (-gain(index), index)
        best_S = np.maximum(best_S, depths(index))
        chosen.append(candidates[index])
    return tuple(chosen)


def _match(closing: tuple[int, ...], slices: int) -> tuple[list[int] | None, list[int]]:
    """Matched opening slices and unmatched slices; (None, []) when a closing slice has no partner."""
    unmatched: list[int] = []
    openings: list[int] = []
    for slice_index in range(slices):
        if slice_index not in closing:
            unmatched.append(slice_index)
        elif unmatched:
            openings.append(unmatched.pop())
        else:
            return None, []
    return sorted(openings), unmatched
