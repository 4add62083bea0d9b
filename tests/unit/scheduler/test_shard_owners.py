"""Owners that die, fall silent, fail or are fenced: replaced and asked again, never two of one shard. Without Ray."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from itertools import count

import pytest

from s3t_ray.errors import ClusterError, StoreError
from s3t_ray.ledger.values import Fenced
from s3t_ray.plan.stages import HOLDOUT_SHARD, plan_shard
from s3t_ray.run.shard_view import ShardView
from s3t_ray.scheduler.interfaces import OwnerFailed, OwnerLost
from s3t_ray.scheduler.shard import ANSWER_SECONDS, OWNER_DEATHS, ShardOwners


def view_of(shard: int) -> ShardView:
    return ShardView(plan_shard(shard, [(0,)], {0: "digest"}, "recipe"), frozenset(), frozenset(), (), False)


class PlayedOwners:
    """Each call is answered by `answers(kind, shard)`: nothing, or an error that it raises."""

    def __init__(self, answers: Callable[[str, int], Exception | None] = lambda kind, shard: None) -> None:
        self.answers = answers
        self.alive: set[int] = set()
        self.started: list[int] = []
        self.called: list[tuple[str, int]] = []
        self.busy: set[str] = set()
        self._numbers = count()

    def start(self, shard: int) -> None:
        assert shard not in self.alive, "two owners of one shard"
        self.alive.add(shard)
        self.started.append(shard)

    def end(self, shard: int) -> None:
        self.alive.remove(shard)

    def _call(self, kind: str, shard: int) -> Hashable:
        assert shard in self.alive
        self.called.append((kind, shard))
        return (kind, shard, next(self._numbers))

    def view(self, shard: int) -> Hashable:
        return self._call("view", shard)

    def prune(self, shard: int, epoch: int) -> Hashable:
        assert epoch == 3
        return self._call("prune", shard)

    def purge(self, shard: int, epoch: int, stages: tuple[str, ...]) -> Hashable:
        assert epoch == 3
        return self._call("purge", shard)

    def ended(self, calls: Collection[Hashable]) -> Collection[Hashable]:
        return [call for call in calls if isinstance(call, tuple) and call[0] not in self.busy]

    def answer(self, call: Hashable, wait_seconds: float) -> ShardView:
        assert isinstance(call, tuple)
        kind, shard, _ = call
        assert wait_seconds == (0.0 if kind == "purge" else ANSWER_SECONDS)
        error = self.answers(kind, shard)
        if error is not None:
            raise error
        return view_of(shard)


def lost() -> OwnerLost:
    return OwnerLost("the actor died", "wait")


def test_every_shard_has_an_owner_and_so_have_the_held_out_records() -> None:
    played = PlayedOwners()
    owners = ShardOwners(played, 3, 2)
    assert owners.views().keys() == {HOLDOUT_SHARD, 0, 1} == set(played.started)
    assert owners.prune([1]).keys() == {1}


def test_one_that_dies_is_replaced_and_asked_again_and_the_others_are_not() -> None:
    deaths = iter([lost(), lost()])
    played = PlayedOwners(lambda kind, shard: next(deaths, None) if shard == 1 else None)
    owners = ShardOwners(played, 3, 2)
    assert owners.prune([0, 1]).keys() == {0, 1}
    assert played.called == [("prune", 0), ("prune", 1), ("prune", 1), ("prune", 1)]
    assert played.started.count(1) == 3 and played.alive == {HOLDOUT_SHARD, 0, 1}


def test_one_that_keeps_dying_ends_the_scheduler_with_its_name() -> None:
    played = PlayedOwners(lambda kind, shard: lost() if shard == 0 else None)
    owners = ShardOwners(played, 3, 2)
    with pytest.raises(ClusterError, match=rf"shards \[0\] died or did not answer {OWNER_DEATHS} times"):
        owners.views()


@pytest.mark.parametrize("error", [StoreError("a disk", "look at it"), OwnerFailed("a bug"), Fenced("newer", "stop")])
def test_an_error_of_the_work_itself_is_not_tried_again(error: Exception) -> None:
    played = PlayedOwners(lambda kind, shard: error)
    owners = ShardOwners(played, 3, 1)
    with pytest.raises(type(error)):
        owners.prune([0])
    assert played.called == [("prune", 0)] and played.started.count(0) == 1


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
    errors = {0: StoreError("a disk", "look at it"), 1: lost(), 2: OwnerFailed("a bug")}
    played = PlayedOwners(lambda kind, shard: errors[shard])
    owners = ShardOwners(played, 3, 3)
    for shard in errors:
        owners.start_purge(shard, ())
    assert owners.finished_purges() == errors
    assert [played.started.count(shard) for shard in errors] == [1, 2, 1]


def test_a_fenced_purge_ends_the_scheduler() -> None:
    played = PlayedOwners(lambda kind, shard: Fenced("a newer scheduler has taken over", "stop"))
    owners = ShardOwners(played, 3, 1)
    owners.start_purge(0, ())
    with pytest.raises(Fenced):
        owners.finished_purges()
