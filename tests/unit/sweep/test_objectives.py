"""Forecasts of a trial, against plain simulation and sums."""

from __future__ import annotations

from random import Random

import pytest

from s3t_ray.sweep.objectives import depth_after
from tests.unit.sweep.outcomes import outcome

ORDERS = ((0, 1, 2, 3), (2, 3, 0, 1))


def _played(shards: int, deletions: int, rounds: int) -> float:
    """Mean depth over all shards: deletions thrown one by one."""
    random, total = Random(1), 0
    for _ in range(rounds):
        hit: list[set[int]] = [set() for _ in range(shards)]
        for _ in range(deletions):
            hit[random.randrange(shards)].add(random.randrange(4))
        for own in hit:
            total += max(next((i for i, s in enumerate(order) if s in own), 4) for order in ORDERS)
    return total / (rounds * shards)


@pytest.mark.parametrize("shards", [1, 3])
def test_depth_after_deletions_in_the_whole_run(shards: int) -> None:
    found = depth_after(ORDERS, shards, 6)
    assert found[0] == 4.0 and list(found) == sorted(found, reverse=True)
    for deletions in (1, 3, 6):
        # At most 4 a depth, so 6,000 shards give the mean to 3 x 2 / sqrt(6000) = 0.08 at worst.
        assert found[deletions] == pytest.approx(_played(shards, deletions, 6000 // shards), abs=0.08)


def test_many_deletions_and_shards_do_not_overflow() -> None:
    found = depth_after(ORDERS, 100, 3000)
    assert 0 <= found[-1] < 0.01 and found[100] < found[10] < 4


def test_loss_lies_between_those_of_whole_depths() -> None:
    one = outcome("a", losses=(3.0, 2.0, 1.5, 1.4, 1.4), depth_after=(4.0, 2.5, 0.5, 0.0))
    assert [one.loss_after(deletions) for deletions in range(4)] == pytest.approx([1.4, 1.45, 2.5, 3.0])
    assert outcome("b", losses=None).loss_after(0) is None
    assert outcome("c", losses=()).loss_after(0) is None, "nothing was held out"
