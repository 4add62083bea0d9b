"""Computes what survives deletions in one shard: exact tables over all subsets of its slices.

A set of slices is a bit mask (bit s: slice s), so a table over all subsets is an array of 2^L
entries. The suffix `_S` marks tables by surviving set, `_D` by deleted set. The survivors of deleting
D are the complement of D, which is the reversed index: `table_S[::-1]` is by deleted set.

In: orders (permutations of 0..L-1), deletion probabilities. Out: arrays. Pure. Refuses more slices
than a table can hold instead of approximating silently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from s3t_ray.config.checks import MOST_SLICES_IN_A_TABLE
from s3t_ray.errors import ConfigError

MOST_SLICES = MOST_SLICES_IN_A_TABLE
"""The largest L for exact tables: 65,536 entries."""


def check_table_fits(slices: int) -> None:
    """Raise ConfigError if a table of 2^L entries would be too large."""
    if slices > MOST_SLICES:
        raise ConfigError(
            f"{slices} slices have {2**slices:,} subsets, too many for an exact table",
            f"use at most {MOST_SLICES} slices here, or a simulation",
        )


def prefix_masks(orders: Sequence[Sequence[int]]) -> np.ndarray:
    """int64 [B, L]: the masks of the first 1..L slices of each order."""
    return np.bitwise_or.accumulate(np.left_shift(1, np.asarray(orders, dtype=np.int64)), axis=1)


def surviving_depths(orders: Sequence[Sequence[int]], slices: int) -> np.ndarray:
    """int64 [2^L] by surviving set: the depth of the shard's deepest model if exactly these slices survive.

    This is the longest prefix of any order within the set: mark each prefix with its length, then
    propagate the maximum from subsets to supersets, one slice at a time.
    """
    check_table_fits(slices)
    depths_S = np.zeros(2**slices, dtype=np.int64)
    if len(orders):
        depths_S[prefix_masks(orders)] = np.arange(1, slices + 1)
    for bit in range(slices):
        without, with_bit = _halves(depths_S, bit)
        np.maximum(with_bit, without, out=with_bit)
    return depths_S


def hit_distribution(probabilities: Sequence[float], deletions: int) -> np.ndarray:
    """float64 [2^L] by deleted set: the probability that `deletions` independent deletions hit exactly this set.

    `probabilities`: per slice, given that the deletion hits this shard; they sum to 1. A slice can be
    hit more than once.
    """
    return next(islice(hit_distributions(probabilities), deletions, None))


def hit_distributions(probabilities: Sequence[float]) -> Iterator[np.ndarray]:
    """`hit_distribution` for 0, 1, 2, ... deletions. Infinite."""
    check_table_fits(len(probabilities))
    chance_D = np.zeros(2 ** len(probabilities))
    chance_D[0] = 1.0
    while True:
        yield chance_D
        after_D = np.zeros_like(chance_D)
        for bit, probability in enumerate(probabilities):
            without, with_bit = _halves(chance_D, bit)
            _halves(after_D, bit)[1][...] += probability * (without + with_bit)
        chance_D = after_D


def uniform_weights(slices: int) -> np.ndarray:
    """int64 [2^L] by deleted set D: the weight of D in the mean depth after r uniform deletions, summed over
    r = 1..L and multiplied by L^L.

    Exact integers, so that every machine chooses the same orders. Out of L^r series of r deletions,
    surj(r, |D|) hit exactly D.
    """
    if slices > 14:
        raise ConfigError(f"exact weights for {slices} slices overflow 64 bits", "use at most 14 slices")
    by_count = [0] * (slices + 1)
    words = [1] + [0] * slices  # surjections of r deletions onto j slices, r = 0
    for r in range(1, slices + 1):
        words = [0] + [j * (words[j] + words[j - 1]) for j in range(1, slices + 1)]
        for j in range(1, slices + 1):
            by_count[j] += words[j] * slices ** (slices - r)
    return np.array(by_count, dtype=np.int64)[np.bitwise_count(np.arange(2**slices))]


def _halves(table: np.ndarray, bit: int) -> tuple[np.ndarray, np.ndarray]:
    """Aligned views of the entries whose mask lacks `bit` and of those that have it."""
    blocks = table.reshape(-1, 2, 2**bit)
    return blocks[:, 0, :], blocks[:, 1, :]
