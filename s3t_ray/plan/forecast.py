"""Forecasts how many deletions a run survives and how much depth remains, by formulas and simulation.

In: orders of each shard, deletion probabilities. Out: numbers with their standard errors. Pure:
simulations are seeded. They simulate the deletions, not the formulas, so each verifies the other.
Shards may differ in orders but not in L.

A deletion hits one slice and counts even if that slice was hit before. A shard is dead once each of
its sequences has lost its first slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from math import sqrt
from typing import NamedTuple

import numpy as np

from s3t_ray.errors import ConfigError
from s3t_ray.plan.orders_greedy import check_probabilities
from s3t_ray.plan.survival import MOST_SLICES, hit_distributions, surviving_depths

Orders = Sequence[Sequence[int]]

CHUNK_ENTRIES = 2_000_000
"""Slices x trials simulated at once. This limits memory to about 100 MB."""


class Estimate(NamedTuple):
    """A figure and its standard error (0: exact)."""

    mean: float
    standard_error: float


def harmonic(count: int) -> float:
    """1 + 1/2 + ... + 1/count."""
    return sum(1 / term for term in range(1, count + 1))


def expected_deletions(shards: int, slices: int, budget: int) -> float:
    """The expected number of uniform deletions until every shard is dead, with cyclic orders: m L H(m min(B, L)).

    A run is dead when the last of the m min(B, L) distinct first slices is hit. This is the coupon
    collector's expected time for those slices among m L equally likely ones, and exact.
    """
    return expected_deletions_for_first_slices(shards, slices, shards * min(budget, slices))


def expected_deletions_for_first_slices(shards: int, slices: int, first_slices: int) -> float:
    """`expected_deletions` for any orders that have `first_slices` distinct first slices over all shards."""
    return shards * slices * harmonic(first_slices)


def count_first_slices(orders_by_shard: Sequence[Orders]) -> int:
    """The number of distinct (shard, slice) pairs that start a sequence."""
    return sum(len(_firsts(orders)) for orders in orders_by_shard)


def simulate_deletions(
    orders_by_shard: Sequence[Orders], trials: int, seed: int, probabilities: Sequence[Sequence[float]] | None = None
) -> Estimate:
    """The number of deletions until every shard is dead, by Monte Carlo simulation.

    `probabilities[shard][slice]`: the probability that a deletion hits this slice, summing to 1 over
    all (default: equal). The mean is infinite if a first slice has probability 0. Raises ConfigError
    for invalid probabilities.
    """
    chances = _flat_probabilities(orders_by_shard, probabilities)
    slices = len(orders_by_shard[0][0])
    # Only hits of first slices matter; hits of other slices only add to the count in between.
    chances = chances[
        [shard * slices + first for shard, orders in enumerate(orders_by_shard) for first in _firsts(orders)]
    ]
    random = np.random.default_rng(seed)
    total = total_squares = 0.0
    left = trials
    while left:
        batch = min(left, max(1, CHUNK_ENTRIES // chances.size))
        # A sequence dies with its first slice, a shard with its last sequence, the run with its last shard.
        dead_N = last_hit_times(chances, batch, random)
        total += float(dead_N.sum())
        total_squares += float(np.square(dead_N).sum())
        left -= batch
    mean = total / trials
    if not np.isfinite(mean):
        return Estimate(mean, 0.0)
    variance = max(total_squares / trials - mean * mean, 0.0) * trials / max(trials - 1, 1)
    return Estimate(mean, sqrt(variance / trials))


def deletion_chances(sizes: Sequence[Sequence[int]]) -> list[list[float]]:
    """The probability that a deletion hits each slice, proportional to its records.

    `sizes`: records by shard and slice, with at least one record in total.
    """
    total = sum(map(sum, sizes))
    return [[size / total for size in shard] for shard in sizes]


def full_slices_first(orders: Orders, sizes: Sequence[int]) -> Orders:
    """The orders with their empty slices moved to the end.

    A model trained only on empty slices has learned nothing, and no deletion prunes it. A useful model of the shard
    survives as long as the first non-empty slice of some order.
    """
    return [sorted(order, key=lambda index: sizes[index] == 0) for order in orders]


def last_hit_times(chances: np.ndarray, trials: int, random: np.random.Generator) -> np.ndarray:
    """float64 [trials]: the number of deletions until all of these slices have been hit. See `first_hit_times`.

    If all slices are equally likely, their order does not matter, and only the waiting times are drawn.
    """
    if np.any(chances != chances[0]):
        return first_hit_times(chances, trials, random).max(axis=1)
    with np.errstate(divide="ignore"):
        missed_S = 1.0 - chances[0] * np.arange(chances.size, 0, -1)
        rates_S = -np.log(np.clip(missed_S, 0.0, 1.0))  # by number of slices not hit yet, descending
        waits_NS = random.standard_exponential((trials, chances.size))
        waits_NS /= rates_S
        np.floor(waits_NS, out=waits_NS)
    return np.asarray(waits_NS.sum(axis=1)) + chances.size


def first_hit_times(chances: np.ndarray, trials: int, random: np.random.Generator) -> np.ndarray:
    """float64 [trials, slices]: the number of deletions until each slice is first hit (inf: never).

    `chances`: the probability of a deletion per slice; the remainder to 1 hits other slices. Exact in
    distribution, without a loop over deletions: the order of first hits is that of independent
    exponential clocks with these rates, and the number of deletions between two new slices is
    geometric, with the total probability of the slices not hit yet.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        clocks_NS = random.standard_exponential((trials, chances.size)) / chances
        order_NS = np.argsort(clocks_NS, axis=1)
        hit_NS = np.cumsum(chances[order_NS], axis=1)
        missed_NS = np.empty_like(hit_NS)  # probability that a deletion hits no new slice
        missed_NS[:, 0] = 0.0
        missed_NS[:, 1:] = hit_NS[:, :-1]
        missed_NS += max(1.0 - float(chances.sum()), 0.0)
        np.minimum(missed_NS, 1.0, out=missed_NS)
        # The number of trials up to a success is 1 + floor(Exp(1) / -log(miss)).
        gaps_NS = np.floor(random.standard_exponential(missed_NS.shape) / -np.log(missed_NS)) + 1.0
        waits_NS = np.cumsum(gaps_NS, axis=1)
    times_NS = np.empty_like(waits_NS)
    np.put_along_axis(times_NS, order_NS, waits_NS, axis=1)
    times_NS[:, chances == 0] = np.inf
    return times_NS


def mean_depth_after(
    orders: Orders,
    deletions: int,
    probabilities: Sequence[float] | None = None,
    trials: int = 20_000,
    seed: int = 0,
) -> Estimate:
    """The mean depth of one shard's deepest model after `deletions` deletions in it, without healing.

    Exact up to L = 16, over all sets of slices that can be hit; simulated above that. `probabilities`:
    per slice, given that the deletion hits this shard (default: equal). Raises ConfigError if they are
    invalid.
    """
    return mean_depths(orders, [deletions], probabilities, trials, seed)[0]


def mean_depths(
    orders: Orders,
    deletions: Sequence[int],
    probabilities: Sequence[float] | None = None,
    trials: int = 20_000,
    seed: int = 0,
) -> tuple[Estimate, ...]:
    """`mean_depth_after` for several numbers of deletions."""
    slices = len(orders[0])
    if slices <= MOST_SLICES:
        most = max(deletions, default=0)
        depths_D = surviving_depths(orders, slices)[::-1]
        chances_D = islice(hit_distributions(check_probabilities(slices, probabilities)), most + 1)
        exact = [Estimate(float(chance_D @ depths_D), 0.0) for chance_D in chances_D]
        return tuple(exact[number] for number in deletions)
    chances = _flat_probabilities([orders], None if probabilities is None else [probabilities])
    random = np.random.default_rng(seed)
    times_NS = first_hit_times(chances, trials, random)
    found = []
    for number in deletions:
        alive_NS = times_NS > number
        depth_N = np.zeros(trials)
        for order in orders:
            np.maximum(depth_N, np.logical_and.accumulate(alive_NS[:, list(order)], axis=1).sum(axis=1), out=depth_N)
        found.append(Estimate(float(depth_N.mean()), float(depth_N.std(ddof=1) / sqrt(trials))))
    return tuple(found)


def most_depth_after(slices: int, deletions: int, probabilities: Sequence[float] | None = None) -> float:
    """The mean number of slices not hit. No orders can exceed this depth; `chains` reaches it."""
    chances = [1 / slices] * slices if probabilities is None else probabilities
    return float(sum((1 - chance) ** deletions for chance in chances))


def _firsts(orders: Orders) -> list[int]:
    return sorted({order[0] for order in orders})


def _flat_probabilities(
    orders_by_shard: Sequence[Orders], probabilities: Sequence[Sequence[float]] | None
) -> np.ndarray:
    """The probabilities as float64 [m L], shard by shard."""
    shape = (len(orders_by_shard), len(orders_by_shard[0][0]))
    chances = np.full(shape, 1 / (shape[0] * shape[1])) if probabilities is None else np.asarray(probabilities, float)
    if chances.shape != shape or (chances < 0).any() or abs(chances.sum() - 1) > 1e-9:
        raise ConfigError(
            f"probabilities must be {shape[0]} x {shape[1]} numbers of at least 0 that sum to 1, got {probabilities}",
            "give one number per slice of each shard, and divide them by their sum",
        )
    return chances.ravel()
