"""Orders for any budget and any deletion probabilities, by expected surviving depth.

For budgets between 1 and C(L, L//2), or slices that are not equally likely to lose a record. Each
new order is the best of all L!: the gain of an order over those already chosen is a sum over its
prefixes, so the best order is a longest path through the subsets of slices. Dynamic programming
finds it exactly in O(L 2^L) instead of trying L! orders. Expected depth is monotone and submodular
in the set of orders, so greedy keeps at least 1 - 1/e (63%) of what the best B orders reach
(Nemhauser, Wolsey, Fisher 1978). `forecast.py` computes the distance from the maximum.

In: L, B, probabilities, the number of deletions to look ahead. Out: orders. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial, isclose

import numpy as np

from s3t_ray.errors import ConfigError
from s3t_ray.plan.survival import check_table_fits, hit_distribution, surviving_depths

NEGLIGIBLE_GAIN = 1e-12
"""Gains (in slices of depth) that differ by less count as equal; then the lower slice index wins."""


def greedy_orders(
    slices: int, budget: int, probabilities: Sequence[float] | None = None, deletions: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """`budget` distinct orders, at least one; fewer if no further order adds depth.

    `probabilities`: per slice, given that a deletion hits this shard (default: equal). `deletions`:
    R; the mean depth is averaged over 1..R deletions (default: L). Raises ConfigError if a value is
    impossible. The orders of a smaller budget are a prefix of a larger one's.
    """
    chances = check_probabilities(slices, probabilities)
    if not 1 <= budget <= factorial(slices):
        raise ConfigError(
            f"budget must be 1..{factorial(slices)} ({slices} slices have that many orders), got {budget}",
            "change budget or slices",
        )
    ahead = slices if deletions is None else deletions
    if ahead < 1:
        raise ConfigError(f"the number of deletions to look ahead must be at least 1, got {ahead}", "use 1 or more")
    weights_S = np.mean([hit_distribution(chances, r) for r in range(1, ahead + 1)], axis=0)[::-1]
    chosen: list[tuple[int, ...]] = []
    while len(chosen) < budget:
        order, gain = _best_order(slices, weights_S, surviving_depths(chosen, slices))
        if chosen and gain <= NEGLIGIBLE_GAIN:
            break
        chosen.append(order)
    return tuple(chosen)


def check_probabilities(slices: int, probabilities: Sequence[float] | None) -> tuple[float, ...]:
    """The probabilities (None: all equal). Raises ConfigError unless they are L non-negative numbers with sum 1."""
    check_table_fits(slices)
    if probabilities is None:
        return (1 / slices,) * slices
    if len(probabilities) != slices or min(probabilities) < 0 or not isclose(sum(probabilities), 1, abs_tol=1e-9):
        raise ConfigError(
            f"probabilities must be {slices} numbers of at least 0 that sum to 1, got {list(probabilities)}",
            "give one number per slice, and divide them by their sum",
        )
    return tuple(probabilities)


def _best_order(slices: int, weights_S: np.ndarray, depths_S: np.ndarray) -> tuple[tuple[int, ...], float]:
    """The order that adds the most expected depth to `depths_S`, and its gain.

    For survivors S, an order gives depth >= d if its first d slices P are all in S. This is an
    improvement if depths_S[S] < d. So its gain is the sum over its prefixes P of
    gain[P] = sum of weights_S[S] over all S that contain P with depths_S[S] < |P|.
    """
    size_S = np.bitwise_count(np.arange(2**slices))
    gain_P = np.zeros(2**slices)
    for depth in range(1, slices + 1):
        above = np.where(depths_S < depth, weights_S, 0.0)
        for bit in range(slices):  # sums over supersets
            blocks = above.reshape(-1, 2, 2**bit)
            blocks[:, 0, :] += blocks[:, 1, :]
        gain_P = np.where(size_S == depth, above, gain_P)
    return _longest_path(slices, gain_P)


def _longest_path(slices: int, gain_P: np.ndarray) -> tuple[tuple[int, ...], float]:
    """The chain from the empty set to all slices with the largest total gain; ties by the lowest slice."""
    best_P = np.zeros_like(gain_P)  # largest gain above P, excluding P's own
    for mask in range(2**slices - 2, -1, -1):
        best_P[mask] = max(_through(best_P, gain_P, mask, s) for s in range(slices) if not mask >> s & 1)
    order: list[int] = []
    mask = 0
    while len(order) < slices:
        values = {s: _through(best_P, gain_P, mask, s) for s in range(slices) if not mask >> s & 1}
        most = max(values.values())
        order.append(next(s for s, value in values.items() if value >= most - NEGLIGIBLE_GAIN))
        mask |= 1 << order[-1]
    return tuple(order), float(best_P[0])


def _through(best_P: np.ndarray, gain_P: np.ndarray, mask: int, slice_index: int) -> float:
    wider = mask | 1 << slice_index
    return float(gain_P[wider] + best_P[wider])
