"""Orders of slices from a symmetric chain decomposition: they keep the maximum possible depth.

After deletions in slices D, a shard serves the longest prefix that avoids D, at most L - |D| slices.
It reaches this maximum if some order starts with exactly the surviving slices. The subsets of L
slices decompose into C(L, L//2) symmetric chains (de Bruijn, Tengbergen, Kruyswijk 1951; here by the
bracket matching of Greene and Kleitman 1976). Each chain is a segment of one order, so C(L, L//2)
orders always reach the maximum. Fewer cannot, because the sets of L//2 slices form an antichain.

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
"""The largest L for chains: 924 orders, which take about a second to rank."""


def maximal_chains(slices: int) -> tuple[tuple[int, ...], ...]:
    """All C(L, L//2) orders. Every set of slices is a prefix of at least one of them.

    Read a set as brackets: a slice outside it opens, a slice in it closes. Along a chain, the matched
    slices stay the same, and the unmatched ones join in ascending order. So an order consists of the
    matched closing slices (the chain's smallest set), the unmatched ones, and the matched opening
    ones, each ascending. Ascending order lets other orders share the path to a chain's smallest set,
    which gives the smallest number of stages for complete orders. Raises ConfigError above MOST_SLICES.
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
    """The `budget` most useful orders of `maximal_chains`, the best first; all of them if there are fewer.

    The next order is the one that adds the most to the mean surviving depth, summed over 1..L uniform
    deletions; ties by the earliest. The orders of a smaller budget are a prefix of a larger one's.
    """
    candidates = maximal_chains(slices)
    if slices == 1:
        return candidates
    masks = np.arange(2**slices)
    weights_S = uniform_weights(slices)[::-1]
    best_S = np.zeros(2**slices, dtype=np.int64)

    def depths(index: int) -> np.ndarray:
        """int64 [2^L]: the depth of one order by surviving set."""
        prefixes = prefix_masks([candidates[index]])[0]
        inside = (masks & prefixes[:, None]) == prefixes[:, None]
        return np.asarray(inside.sum(axis=0), dtype=np.int64)

    def gain(index: int) -> int:
        return int((weights_S * np.maximum(depths(index) - best_S, 0)).sum())

    # Gains only decrease as orders are added (submodularity), so an old gain is an upper bound and
    # only the top of the heap has to be recomputed (lazy greedy). With exact integers, this equals a
    # full search, including ties.
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
    """The matched opening slices and the unmatched slices; (None, []) if a closing slice has no match."""
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
