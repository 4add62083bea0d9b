"""What survives deletions inside one shard: exact tables over all subsets of its slices.

A set of slices is a bit mask (bit s: slice s), so a table over all subsets is an array of 2^L
entries, `..._S` for tables by surviving set and `..._D` by deleted set; the survivors of deleting
D are the complement of D, which is the reversed index: `table_S[::-1]` is by deleted set.

In: orders (permutations of 0..L-1), deletion probabilities. Out: arrays. Pure; refuses more slices
than a table can hold rather than approximate silently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from s3t_ray.config.checks import MOST_SLICES_IN_A_TABLE
from s3t_ray.errors import ConfigError

MOST_SLICES = MOST_SLICES_IN_A_TABLE
"""Largest L for exact tables: 65,536 entries."""


def check_table_fits(slices: int) -> None:
    """Raise ConfigError where 2^L entries would be too many."""
    if slices > MOST_SLICES:
        raise ConfigError(
            f"{slices} slices have {2**slices:,} subsets, too many for an exact table",
            f"use at most {MOST_SLICES} slices here, or a simulation",
        )


def prefix_masks(orders: Sequence[Sequence[int]]) -> np.ndarray:
    """int64 [B, L]: mask of the first 1..L slices of each order."""
    return np.bitwise_or.accumulate(np.left_shift(1, np.asarray(orders, dtype=np.int64)), axis=1)


def surviving_depths(orders: Sequence[Sequence[int]], slices: int) -> np.ndarray:
    """int64 [2^L] by surviving set: depth of the shard's deepest model when just these slices survive.

    It is the largest prefix of any order that lies inside the set: mark each prefix with its
    length, then carry the maximum up from subsets to supersets, one slice at a time.
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
    """float64 [2^L] by deleted set: chance that `deletions` independent ones hit exactly this set.

    `probabilities` are those of each slice, given that the deletion falls in this shard; they sum
    to 1. A slice may be hit more than once.
    """
    return next(islice(hit_distributions(probabilities), deletions, None))


def hit_distributions(probabilities: Sequence[float]) -> Iterator[np.ndarray]:
    """`hit_distribution` for 0, 1, 2, ... deletions, without end."""
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
    """int64 [2^L] by deleted set D: exact integer weight of D in the sum over r = 1..L of the mean
    depth after r uniform deletions, times L^L.

    Integers, so that choosing orders by it gives the same orders on every machine. There are
    surj(r, |D|) words of r deletions that hit exactly D, out of L^r.
    """
    if slices > 14:
        raise ConfigError(f"exact weights for {slices} slices overflow 64 bits", "use at most 14 slices")
    by_count = [0] * (slices + 1)
    words = [1] + [0] * slices  # surjections of r letters onto j, r = 0
    for r in range(1, slices + 1):
        words = [0] + [j * (words[j] + words[j - 1]) for j in range(1, slices + 1)]
        for j in range(1, slices + 1):
            by_count[j] += words[j] * slices ** (slices - r)
    return np.array(by_count, dtype=np.int64)[np.bitwise_count(np.arange(2**slices))]


def _halves(table: np.ndarray, bit: int) -> tuple[np.ndarray, np.ndarray]:
    """Views of the entries whose mask lacks `bit` and of those that have it, aligned."""
    blocks = table.reshape(-1, 2, 2**bit)
    return blocks[:, 0, :], blocks[:, 1, :]
