"""Orders by bipartite matching, and by conditional sampling beyond L of them (the paper's choice for
slices that are not equally likely to lose a record).

Kept for comparison: with the paper's exponent t = 100, the score depends almost only on the first
slice, and `orders_greedy.py` keeps more depth for the same budget. In: L, B, probabilities. Out:
orders. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import exp, factorial, log

import numpy as np

from s3t_ray.errors import ConfigError
from s3t_ray.plan.identity import digest_fields
from s3t_ray.plan.orders_greedy import check_probabilities

BMS_DOMAIN = "s3t/orders-bms/1"


def bms_orders(
    slices: int, budget: int, probabilities: Sequence[float] | None = None, exponent: float = 100.0, seed: int = 0
) -> tuple[tuple[int, ...], ...]:
    """`budget` distinct orders. Raises ConfigError if the budget or the probabilities are impossible.

    Up to L orders: start L sequences with a different slice each and extend them level by level. At
    level n, a matching assigns one more slice to each sequence, and each slice to one sequence, to
    maximize the sum of n (1 - probability that one of its first n slices is hit)^exponent. The
    sequences with the best scores come first. Beyond L: orders drawn slice by slice with weights
    1 - probability.
    """
    chances = check_probabilities(slices, probabilities)
    if not 1 <= budget <= factorial(slices):
        raise ConfigError(
            f"budget must be 1..{factorial(slices)} ({slices} slices have that many orders), got {budget}",
            "change budget or slices",
        )
    chosen = _matched(chances, exponent)[:budget]
    attempt = 0
    while len(chosen) < budget:
        order = _sampled(chances, digest_fields(BMS_DOMAIN, str(seed), str(slices), str(attempt)))
        attempt += 1
        if order not in chosen:
            chosen.append(order)
    return tuple(chosen)


def _matched(chances: Sequence[float], exponent: float) -> list[tuple[int, ...]]:
    """The L matched orders, the best score first; ties by the lowest first slice."""
    from scipy.optimize import linear_sum_assignment  # 0.3 s to import, and only this needs it

    slices = len(chances)
    found = [[first] for first in range(slices)]
    for _ in range(2, slices + 1):
        # A sequence's earlier score does not depend on this level's choice, so only this level's term matters.
        # Scaling by a common factor changes no matching, and keeps high powers from underflowing.
        logs = np.full((slices, slices), -np.inf)
        for row, order in enumerate(found):
            kept = 1 - sum(chances[s] for s in order)
            for s in set(range(slices)) - set(order):
                logs[row, s] = exponent * log(max(kept - chances[s], 1e-300))
        # Rounded, so that ties are ties on every machine.
        weights = np.where(np.isneginf(logs), -np.inf, np.exp(logs - logs.max()).round(12))
        for row, s in zip(*linear_sum_assignment(weights, maximize=True), strict=True):
            found[row].append(int(s))
    return sorted((tuple(order) for order in found), key=lambda order: (-_score(order, chances, exponent), order[0]))


def _score(order: Sequence[int], chances: Sequence[float], exponent: float) -> float:
    total = hit = 0.0
    for length, s in enumerate(order, start=1):
        hit += chances[s]
        total += length * exp(exponent * log(max(1 - hit, 1e-300)))
    return total


def _sampled(chances: Sequence[float], key: str) -> tuple[int, ...]:
    """An order drawn slice by slice without replacement, each with weight 1 - its hit probability."""
    draws = hashlib.shake_256(key.encode()).digest(8 * len(chances))
    left = list(range(len(chances)))
    order: list[int] = []
    while left:
        share = int.from_bytes(draws[8 * len(order) : 8 * len(order) + 8], "big") / 2**64
        point = share * sum(1 - chances[s] for s in left)
        pick = left[-1]
        for s in left:
            point -= 1 - chances[s]
            if point < 0:
                pick = s
                break
        left.remove(pick)
        order.append(pick)
    return tuple(order)
