"""Orders by bipartite matching, and by conditional sampling above L (the paper's choice for slices
that are not equally likely to lose a record).

Kept to compare with: at the paper's exponent t = 100 the score hardly sees past the first slice,
and `orders_greedy.py` keeps more depth for the same budget. In: L, B, probabilities. Out: orders.
Pure.
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
    """`budget` different orders.

    Up to L: L sequences that begin with a slice each are lengthened level by level; at level n a
    matching hands each sequence one more slice, each slice to one sequence, so that the sum of
    n (1 - chance that one of its first n slices is hit)^exponent is largest; the sequences with
    the best scores come first. Above L: orders drawn slice by slice with weights 1 - chance.
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
    """The L matched orders, the best score first, among equals the lowest first slice."""
    from scipy.optimize import linear_sum_assignment  # 0.3 s to import, and only this needs it

    slices = len(chances)
    found = [[first] for first in range(slices)]
    for _ in range(2, slices + 1):
        # What a sequence scored before is the same whatever it gets now, so this level's term decides.
        # A common factor changes no matching: without it high powers would vanish in rounding.
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
    """An order drawn slice by slice without replacement, each with weight 1 - its chance of a hit."""
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
