"""The simulator: small courses worked out by hand, and the closed form."""

from dataclasses import replace
from math import sqrt

import pytest
from benchlib.simulate import (
    Deletion,
    DepthChange,
    Scenario,
    simulate,
    sisa,
    sisa_without_slices,
    uniform_deletions,
)

from s3t_ray.config.schema import Requeue
from s3t_ray.plan.forecast import expected_deletions

EAGER = Requeue(policy="eager")
ONE = Scenario(
    orders_by_shard=(((0, 1, 2),),),
    stage_seconds=(1.0, 2.0, 3.0),
    groups=1,
    policy=EAGER,
    deletions=(Deletion(10.0, 0, 1),),
    until_seconds=20.0,
)


def _changes(scenario: Scenario) -> list[tuple[float, int]]:
    return [(change.at_seconds, change.depth) for change in simulate(scenario).changes]


def test_one_deletion_healed_immediately() -> None:
    course = simulate(ONE)
    assert course.changes == (
        DepthChange(0.0, 0, 3),
        DepthChange(10.0, 0, 1),
        DepthChange(12.0, 0, 2),
        DepthChange(15.0, 0, 3),
    )
    assert (course.deletions, course.stages_trained, course.stages_stopped, course.busy_seconds) == (1, 2, 0, 5.0)
    assert course.mean_depth == pytest.approx((10 * 3 + 2 * 1 + 3 * 2 + 5 * 3) / 20)
    assert course.dead_share == course.dead_shard_share == 0 and course.deletions_until_dead is None


def test_first_training_and_a_stage_stopped_by_a_deletion() -> None:
    course = simulate(replace(ONE, start="empty", deletions=(Deletion(2.0, 0, 1), Deletion(2.5, 0, 2))))
    # 0-1 stage 1; 1-2 stage 2 until its slice is hit; 2-4 stage 2 again (slice 2 is not in it); 4-7 stage 3.
    assert [(c.at_seconds, c.depth) for c in course.changes] == [(0, 0), (1, 1), (4, 2), (7, 3)]
    assert (course.stages_trained, course.stages_stopped, course.busy_seconds) == (3, 1, 7.0)


def test_what_is_still_in_training_at_the_end_counts_as_busy() -> None:
    course = simulate(replace(ONE, until_seconds=14.0))
    assert course.busy_seconds == 4.0 and course.stages_trained == 1


def test_nothing_heals_without_a_policy() -> None:
    hits = (Deletion(1.0, 0, 2), Deletion(2.0, 0, 0), Deletion(3.0, 0, 1))
    course = simulate(replace(ONE, policy=None, deletions=hits))
    assert [(c.at_seconds, c.depth) for c in course.changes] == [(0, 3), (1, 2), (2, 0)]
    assert course.dead_share == pytest.approx(18 / 20) and course.deletions_until_dead == 2


def test_lazy_heals_below_the_floor_only() -> None:
    hits = (Deletion(2.0, 0, 2), Deletion(4.0, 0, 0))
    lazy = replace(ONE, policy=Requeue(policy="lazy", floor=2), deletions=hits)
    assert _changes(lazy) == [(0, 3), (2, 2), (4, 0), (5, 1), (7, 2)]  # and not back to 3


@pytest.mark.parametrize("window", [0.0, 0.1, 3.0, 1 / 3])
def test_batch_heals_a_window_after_the_first_deletion(window: float) -> None:
    hits = (Deletion(2.1, 0, 2), Deletion(2.1 + window / 2, 0, 2))
    batch = replace(ONE, policy=Requeue(policy="batch", window_seconds=window), deletions=hits)
    course = simulate(batch)
    assert [c.depth for c in course.changes] == [3, 2, 3]
    assert course.changes[-1].at_seconds == pytest.approx(2.1 + window + 3.0)
    assert course.stages_trained == 1


def test_each_batch_has_a_window_of_its_own() -> None:
    hits = (Deletion(1.0, 0, 2), Deletion(9.0, 0, 2))
    batch = replace(ONE, policy=Requeue(policy="batch", window_seconds=2.0), deletions=hits)
    assert _changes(batch) == [
        (0, 3),
        (1, 2),
        (pytest.approx(6.0), 3),  # 1 + 2 of waiting + 3 of training
        (9, 2),
        (pytest.approx(14.0), 3),
    ]


def test_a_second_order_keeps_serving() -> None:
    hit = (Deletion(10.0, 0, 0),)
    two = replace(ONE, orders_by_shard=(((0, 1, 2), (1, 2, 0)),), deletions=hit)
    assert _changes(two)[:2] == [(0, 3), (10, 2)]
    assert _changes(sisa(two))[:2] == [(0, 3), (10, 0)]
    whole = simulate(sisa_without_slices(two))
    assert [(c.at_seconds, c.depth) for c in whole.changes] == [(0, 1), (10, 0), (13, 1)]
    assert whole.dead_share == pytest.approx(3 / 20)


def test_groups_share_shards_and_the_dead_come_first() -> None:
    scenario = Scenario(
        orders_by_shard=(((0, 1),), ((0, 1),)),
        stage_seconds=(1.0, 2.0),
        groups=1,
        policy=EAGER,
        deletions=(Deletion(5.0, 0, 1), Deletion(5.5, 1, 0)),
        until_seconds=20.0,
    )
    assert [(c.at_seconds, c.shard, c.depth) for c in simulate(scenario).changes][2:] == [
        (5.0, 0, 1),
        (5.5, 1, 0),
        (7.0, 0, 2),
        (8.0, 1, 1),
        (10.0, 1, 2),
    ]
    pair = simulate(replace(scenario, groups=2))
    assert pair.changes[-1] == DepthChange(8.5, 1, 2)


@pytest.mark.parametrize("budget", [1, 3])
def test_unhealed_runs_die_as_the_closed_form_says(budget: int) -> None:
    some_orders = tuple(tuple((s + turn) % 3 for s in range(3)) for turn in range(budget))
    counts = []
    for seed in range(150):
        deletions = uniform_deletions(2, 3, seconds_between=1.0, until_seconds=80.0, seed=seed)
        scenario = Scenario((some_orders,) * 2, (1.0, 2.0, 3.0), 2, None, deletions, 80.0)
        dead = simulate(scenario).deletions_until_dead
        assert dead is not None
        counts.append(dead)
    mean = sum(counts) / len(counts)
    error = sqrt(sum((count - mean) ** 2 for count in counts) / (len(counts) - 1) / len(counts))
    assert abs(mean - expected_deletions(2, 3, budget)) < 3 * error


@pytest.mark.parametrize("policy", [EAGER, Requeue(policy="lazy", floor=1), Requeue(policy="batch", window_seconds=9)])
@pytest.mark.parametrize("groups", [1, 3])
def test_time_and_work_add_up(policy: Requeue, groups: int) -> None:
    some_orders = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
    deletions = uniform_deletions(2, 3, seconds_between=7.0, until_seconds=300.0, seed=3)
    scenario = Scenario((some_orders,) * 2, (1.0, 2.0, 3.0), groups, policy, deletions, 300.0, start="empty")
    course = simulate(scenario)
    assert course == simulate(scenario)
    assert course.deletions == len(deletions)
    assert course.busy_seconds <= 300.0 * groups + 1e-6
    times = [change.at_seconds for change in course.changes]
    assert times == sorted(times)
    assert 0 < course.mean_depth < 3 and 0 <= course.dead_share <= course.dead_shard_share < 1
    assert course.busy_seconds_per_deletion == course.busy_seconds / len(deletions)
