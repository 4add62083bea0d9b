"""Owners that die, hang, fail or are fenced are replaced and asked again, never two for one shard. Without Ray."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from itertools import count

import pytest

from s3t_ray.errors import ClusterError, StoreError
from s3t_ray.ledger.values import Fenced
from s3t_ray.plan.stages import HOLDOUT_SHARD, plan_shard
from s3t_ray.run.shard_view import ShardView
from s3t_ray.scheduler.interfaces import OwnerFailed, OwnerLost
from s3t_ray.scheduler.shard import ANSWER_SECONDS, MOST_OWNERS, OWNER_DEATHS, ShardOwners


def view_of(shard: int) -> ShardView:
    return ShardView(plan_shard(shard, [(0,)], {0: "digest"}, "recipe"), frozenset(), frozenset(), (), False)


class PlayedOwners:
    """Each call is answered by `answers(kind, shards)`: nothing, or an error that it raises."""

    def __init__(self, answers: Callable[[str, tuple[int, ...]], Exception | None] = lambda kind, shards: None) -> None:
        self.answers = answers
        self.alive: dict[int, tuple[int, ...]] = {}
        self.started: list[tuple[int, ...]] = []
        self.called: list[tuple[str, tuple[int, ...]]] = []
        self.busy: set[str] = set()
        self._numbers = count()

    def start(self, block: int, shards: tuple[int, ...]) -> None:
        assert block not in self.alive, "two owners of one shard"
        self.alive[block] = shards
        self.started.append(shards)

    def end(self, block: int) -> None:
        del self.alive[block]

    def _call(self, kind: str, block: int, shards: tuple[int, ...]) -> Hashable:
        assert set(shards) <= set(self.alive[block])
        self.called.append((kind, shards))
        return (kind, shards, next(self._numbers))

    def views(self, block: int, shards: tuple[int, ...]) -> Hashable:
        return self._call("views", block, shards)

    def prune(self, block: int, epoch: int, shards: tuple[int, ...]) -> Hashable:
        assert epoch == 3
        return self._call("prune", block, shards)

    def purge(self, block: int, epoch: int, shard: int, stages: tuple[str, ...]) -> Hashable:
        assert epoch == 3
        return self._call("purge", block, (shard,))

    def ended(self, calls: Collection[Hashable]) -> Collection[Hashable]:
        return [call for call in calls if isinstance(call, tuple) and call[0] not in self.busy]

    def answer(self, call: Hashable, wait_seconds: float) -> dict[int, ShardView]:
        assert isinstance(call, tuple)
        kind, shards, _ = call
        assert wait_seconds == (0.0 if kind == "purge" else ANSWER_SECONDS)
        error = self.answers(kind, shards)
        if error is not None:
            raise error
        return {shard: view_of(shard) for shard in shards}


def lost() -> OwnerLost:
    return OwnerLost("the actor died", "wait")


def test_every_shard_has_an_owner_and_so_have_the_held_out_records() -> None:
    played = PlayedOwners()
    owners = ShardOwners(played, 3, 2)
    assert owners.views().keys() == {HOLDOUT_SHARD, 0, 1} and played.started == [(HOLDOUT_SHARD,), (0,), (1,)]
    assert owners.prune([1]).keys() == {1}


def test_many_shards_have_few_owners_each_asked_once_and_only_for_what_is_touched() -> None:
    played = PlayedOwners()
    owners = ShardOwners(played, 3, 100)
    assert len(played.started) == MOST_OWNERS
    assert sorted(shard for block in played.started for shard in block) == [HOLDOUT_SHARD, *range(100)]
    assert owners.prune([0, 1, 99]).keys() == {0, 1, 99}
    assert played.called == [("prune", (0, 1)), ("prune", (99,))]


def test_one_that_dies_is_replaced_and_asked_again_and_the_others_are_not() -> None:
    deaths = iter([lost(), lost()])
    played = PlayedOwners(lambda kind, shards: next(deaths, None) if shards == (1,) else None)
    owners = ShardOwners(played, 3, 2)
    assert owners.prune([0, 1]).keys() == {0, 1}
    assert played.called == [("prune", (0,)), ("prune", (1,)), ("prune", (1,)), ("prune", (1,))]
    assert played.started.count((1,)) == 3 and set(played.alive.values()) == {(HOLDOUT_SHARD,), (0,), (1,)}


def test_one_that_keeps_dying_ends_the_scheduler_with_its_name() -> None:
    played = PlayedOwners(lambda kind, shards: lost() if shards == (0,) else None)
    owners = ShardOwners(played, 3, 2)
    with pytest.raises(ClusterError, match=rf"shards \[0\] died or did not answer {OWNER_DEATHS} times"):
        owners.views()


@pytest.mark.parametrize("error", [StoreError("a disk", "look at it"), OwnerFailed("a bug"), Fenced("newer", "stop")])
def test_an_error_of_the_work_itself_is_not_tried_again(error: Exception) -> None:
    played = PlayedOwners(lambda kind, shards: error)
    owners = ShardOwners(played, 3, 1)
    with pytest.raises(type(error)):
        owners.prune([0])
    assert played.called == [("prune", (0,))] and played.started.count((0,)) == 1


def test_purges_are_told_when_they_end_and_once() -> None:
    played = PlayedOwners()
    owners = ShardOwners(played, 3, 2)
    assert owners.finished_purges() == {}
    owners.start_purge(0, ("a",))
    owners.start_purge(1, ())
    played.busy = {"purge"}
    assert owners.finished_purges() == {}
    played.busy = set()
    done = owners.finished_purges()
    assert {shard: view.plan.shard for shard, view in done.items() if isinstance(view, ShardView)} == {0: 0, 1: 1}
    assert owners.finished_purges() == {}


def test_a_purge_that_fails_is_an_answer_and_a_lost_owner_is_replaced() -> None:
    errors: dict[tuple[int, ...], Exception] = {
        (0,): StoreError("a disk", "look at it"),
        (1,): lost(),
        (2,): OwnerFailed("a bug"),
    }
    played = PlayedOwners(lambda kind, shards: errors[shards])
    owners = ShardOwners(played, 3, 3)
    for (shard,) in errors:
        owners.start_purge(shard, ())
    assert owners.finished_purges() == {shard: error for (shard,), error in errors.items()}
    assert [played.started.count(block) for block in errors] == [1, 2, 1]


def test_an_owner_that_dies_over_several_calls_is_replaced_once() -> None:
    played = PlayedOwners(lambda kind, shards: lost() if kind == "purge" else None)
    owners = ShardOwners(played, 3, 100)
    (block,) = [block for block in played.started if 50 in block]
    for shard in block[:3]:
        owners.start_purge(shard, ())
    assert owners.finished_purges().keys() == set(block[:3])
    assert played.started.count(block) == 2, "the newcomer is not ended for what its predecessor was asked"


def test_a_fenced_purge_ends_the_scheduler() -> None:
    played = PlayedOwners(lambda kind, shards: Fenced("a newer scheduler has taken over", "stop"))
    owners = ShardOwners(played, 3, 1)
    owners.start_purge(0, ())
    with pytest.raises(Fenced):
        owners.finished_purges()
