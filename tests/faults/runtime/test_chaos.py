"""A small chaos run: real Ray, real training, the scheduler, a shard's owner and a rank killed under deletions.

Some 60 s on two busy cores. The large one, with a cluster of three nodes, drivers and nodes killed:

    python -m benchmarks.chaos --runs 4 --kills 52 --deletions 520
"""

from __future__ import annotations

from pathlib import Path

from tests.faults.runtime.chaos import Chaos
from tests.faults.runtime.chaos_plan import Plan

PLAN = Plan(seed=1, kills=4, deletions=24, nodes=0, groups=1, kinds=("scheduler", "shard", "rank"))


def test_no_deletion_is_lost_and_the_adapters_are_those_of_a_training_without_the_deleted(tmp_path: Path) -> None:
    report = Chaos(tmp_path, PLAN).live()
    assert sum(report.kills.values()) == PLAN.kills
    assert report.acknowledged == report.restored == PLAN.deletions
    assert (report.lost, report.problems, report.driver_errors) == (0, (), ())
