"""The decision against a slow, obvious one, and over complete lives of a run with random failures."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.config.schema import Requeue
from s3t_ray.ledger.rows.failure_rows import FailedPurge, FailedServing
from s3t_ray.ledger.values import DeletionRow, DeletionState
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.scheduler.bookkeeping import Bookkeeping
from s3t_ray.scheduler.policy.decide import Decision, ShardPurge, decide
from s3t_ray.scheduler.policy.state import State
from s3t_ray.scheduler.requeue import Offers, idle, place, sequences_in_need
from tests.unit.scheduler.world import World

POLICIES = [
    Requeue(policy="eager"),
    Requeue(policy="lazy", floor=1),
    Requeue(policy="lazy", floor=2),
    Requeue(policy="batch", window_seconds=5),
]
ORDERS = {
    0: [(0, 1, 2), (1, 2, 0)],
    1: [(0, 1, 2), (0, 2, 1), (2, 1, 0)],
    2: [(2, 0, 1)],
    HOLDOUT_SHARD: [],
}
HAPPENINGS = [
    *["delete", "round", "done"] * 3,
    *["failed", "lost", "purged", "not-purged", "damage", "wait"],
    *["behind", "replica-joins", "busy-ledger", "another-scheduler"],
    *["follower-confirms"] * 2,
    "follower-leaves",
]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(HAPPENINGS),
        st.integers(0, 2**16),
    ),
    max_size=40,
)


def slow_decision(state: State) -> Decision:
    """The rules, each told by itself; the earliest step that is due is taken alone."""
    by = {name: [row for row in state.deletions if row.state is name] for name in DeletionState}
    stop = []
    for name, stage in state.training.items():
        view = state.views[stage.shard]
        builds_on = all(below in view.live for below in stage.ancestors)
        if not (name in view.plan.stages and builds_on) and name not in state.stopping:
            stop.append(name)
    unseen = [row for row in by[DeletionState.ACCEPTED] if row.receipt.request_id not in state.viewed]
    if unseen:
        return Decision(
            prune=frozenset(hit.shard for row in unseen for hit in row.receipt.hits),
            viewed=tuple(row.receipt.request_id for row in unseen),
            stop=tuple(stop),
        )
    should = {shard: view.serving for shard, view in state.views.items() if shard != HOLDOUT_SHARD}
    tell = should != state.confirmed or (state.confirmed_in_part and FailedServing() not in state.waiting)
    if stop or tell:
        return Decision(stop=tuple(stop), serve=should if tell else None)
    outside = state.followed_to
    if pruned := movable([row for row in by[DeletionState.ACCEPTED] if outside is None or outside >= row.number]):
        return Decision(pruned=pruned)
    purges, purged = [], []
    for row in by[DeletionState.PRUNED]:
        done = state.purged.get(row.receipt.request_id, frozenset())
        if all(hit.shard in done for hit in row.receipt.hits) and HOLDOUT_SHARD in done:
            purged.append(row)
    for shard, view in sorted(state.views.items()):
        waits = tuple(
            row.receipt.request_id
            for row in by[DeletionState.PRUNED]
            if shard == HOLDOUT_SHARD or any(hit.shard == shard for hit in row.receipt.hits)
            if shard not in state.purged.get(row.receipt.request_id, frozenset())
        )
        trains = any(state.training[name].shard == shard for name in state.stopping if name in state.training)
        held = trains or shard in state.purging or FailedPurge(shard) in state.waiting
        if (waits or view.stale) and not held:
            left = state.unaccounted.get(shard, frozenset())
            erase = [name for name in left if name not in view.plan.stages and name not in state.training]
            purges.append(ShardPurge(shard, waits, tuple(sorted(erase))))
    moved = movable(purged)
    if purges or moved:
        return Decision(purge=tuple(purges), purged=moved)
    certify = []
    for row in by[DeletionState.PURGED]:
        views = [state.views[hit.shard] for hit in row.receipt.hits if hit.shard != HOLDOUT_SHARD]
        lazy, floor = state.policy.policy == "lazy", state.policy.floor
        whole = all(not view.missing or (lazy and view.ever_complete and view.depth >= floor) for view in views)
        if whole and row.receipt.request_id not in state.postponed:
            certify.append(row)
    return Decision(train=place(state), certify=movable(certify))


def movable(rows: Iterable[DeletionRow]) -> tuple[str, ...]:
    moved: list[str] = []
    for row in rows:
        if all(earlier in moved for earlier in row.waits_for):
            moved.append(row.receipt.request_id)
    return tuple(moved)


class Life:
    """A scheduler's memory and decisions in a `World`; each decision is compared with the slow one."""

    def __init__(self, policy: Requeue, groups: int) -> None:
        self.world = World(ORDERS, policy, groups)
        self.begin()

    def begin(self) -> None:
        """Another scheduler, which remembers nothing. The worker groups end with the one before."""
        world = self.world
        world.training.clear()
        world.asked.clear()
        world.purging.clear()
        world.stored &= world.live | world.stale  # the others' bytes are erased when a scheduler begins
        self.books = Bookkeeping(world.views(), world.policy, lambda: world.now)
        self.offers = Offers(self.books.views)

    def round(self) -> None:
        self.books.look(self.world.rows())
        self.books.followed_to = self.world.followed
        self._act(())
        self._act(self.world.free())
        self.books.round_over()

    def _act(self, free: tuple[int, ...]) -> None:
        for _ in range(200):
            state = self.books.state(free)
            expected = slow_decision(state)
            decision = decide(state, self.offers.place)
            self.books.decided()
            assert decision == expected
            if not decision:
                return
            self.world.take(decision, self.books)
            free = tuple(group for group in free if group not in self.world.training)
        raise AssertionError("it never comes to an end")

    def happen(self, what: str, number: int) -> None:
        world, books = self.world, self.books
        world.behind = world.busy_ledger = False
        match what:
            case "delete":
                places = sorted(world.versions)
                chosen = {places[number % len(places)], places[number // 7 % len(places)]}
                earlier = [each.request for each in world.deletions]
                world.delete(sorted(chosen), earlier[-(number % 3) :] if number % 3 else [])
            case "round":
                self.round()
            case "done" | "failed" | "lost" if world.training:
                groups = sorted(world.training)
                world.end_stage(groups[number % len(groups)], books, what)
            case "purged" | "not-purged" if world.purging:
                shards = sorted(world.purging)
                world.end_purge(shards[number % len(shards)], books, what == "purged")
            case "damage" if world.live:
                name = sorted(world.live)[number % len(world.live)]
                world.damage(name)
                books.views[world.stages[name].shard] = world.view(world.stages[name].shard)
            case "wait":
                world.now += number % 90
            case "behind":
                world.behind = True
                self.round()
            case "busy-ledger":
                world.busy_ledger = True
                self.round()
            case "replica-joins":
                world.confirmed = {}
                books.replica_joined()
            case "another-scheduler":
                self.begin()
            case "follower-confirms":  # or joins; what it says may be old
                world.followed = max(world.followed or 0, number % (len(world.deletions) + 1))
            case "follower-leaves":
                world.followed = None

    def settle(self) -> None:
        """From now on everything works: it comes to an end."""
        for _ in range(200):
            if self.world.followed is not None:
                self.world.followed = len(self.world.deletions)
            self.world.now += 60
            for group in sorted(self.world.training):
                self.world.end_stage(group, self.books, "done")
            for shard in sorted(self.world.purging):
                self.world.end_purge(shard, self.books, works=True)
            self.round()
            if idle(self.books.state()):
                return
        raise AssertionError("not idle after 200 rounds in which all works")


@settings(max_examples=1500)
@given(st.sampled_from(POLICIES), st.integers(1, 4), EVENTS)
def test_every_life_keeps_its_promises_and_comes_to_an_end(
    policy: Requeue, groups: int, events: list[tuple[str, int]]
) -> None:
    life = Life(policy, groups)
    for what, number in events:
        life.happen(what, number)
    life.world.behind = life.world.busy_ledger = False
    life.settle()
    world, given_up = life.world, life.books.retries.given_up
    if not given_up - {FailedServing()}:
        assert {each.state for each in world.deletions} <= {DeletionState.RESTORED}
        assert world.stale == set() and world.stored == world.live
        assert world.confirmed == {shard: view.serving for shard, view in world.views().items() if shard >= 0}
        if policy.policy != "lazy":
            assert all(view.plan.stages.keys() == view.live for view in world.views().values())
    assert sequences_in_need(life.books.state()) == 0


def trained(policy: Requeue) -> Life:
    life = Life(policy, 2)
    life.settle()
    return life


def states(life: Life) -> list[DeletionState]:
    return [each.state for each in life.world.deletions]


def test_a_deletion_goes_from_receipt_to_purge_in_one_round_and_the_answers_of_its_purges() -> None:
    life = trained(POLICIES[0])
    life.world.delete([(0, 1)], [])
    life.round()
    assert states(life) == [DeletionState.PRUNED] and life.world.purging.keys() == {0, HOLDOUT_SHARD}
    for shard in list(life.world.purging):
        life.world.end_purge(shard, life.books, works=True)
    life.round()
    assert states(life) == [DeletionState.PURGED] and life.world.training, "and the re-queue has begun"


def test_a_deletion_waits_for_the_server_outside_and_those_before_it_do_not() -> None:
    life = trained(POLICIES[0])
    life.world.followed = 0
    life.world.delete([(0, 1)], [])
    life.world.delete([(1, 1)], [])
    life.round()
    assert states(life) == [DeletionState.ACCEPTED] * 2
    life.world.followed = 1
    life.round()
    assert states(life) == [DeletionState.PRUNED, DeletionState.ACCEPTED]


def test_no_purge_begins_while_a_group_still_trains_on_the_deleted_data() -> None:
    life = Life(POLICIES[0], 2)
    life.round()
    (group, *_) = [group for group, name in life.world.training.items() if life.world.stages[name].shard == 0]
    stage = life.world.stages[life.world.training[group]]
    life.world.delete([(0, stage.slices[0])], [])
    life.round()
    assert stage.id in life.world.asked and life.world.purging.keys() == {HOLDOUT_SHARD}
    life.world.end_stage(group, life.books, "done")
    life.round()
    assert life.world.purging.keys() == {0, HOLDOUT_SHARD}


def test_a_certificate_that_the_ledger_is_too_busy_for_waits_for_the_next_round() -> None:
    life = trained(POLICIES[1])
    life.world.delete([(1, 2)], [])
    life.world.busy_ledger = True
    life.round()
    for shard in list(life.world.purging):
        life.world.end_purge(shard, life.books, works=True)
    life.round()  # it ends: what could not be certified is not tried again and again
    assert states(life) == [DeletionState.PURGED] and not idle(life.books.state())
    life.world.busy_ledger = False
    life.round()
    assert states(life) == [DeletionState.RESTORED]


def test_a_stage_is_stopped_when_what_it_builds_on_is_damaged() -> None:
    life = Life(POLICIES[0], 1)
    while not any(len(life.world.stages[name].slices) == 2 for name in life.world.training.values()):
        for group in list(life.world.training):
            life.world.end_stage(group, life.books, "done")
        life.round()
    ((_, name),) = life.world.training.items()
    stage = life.world.stages[name]
    life.world.damage(stage.ancestors[0])
    life.books.views[stage.shard] = life.world.view(stage.shard)
    life.round()
    assert life.world.asked == {name}
    life.settle()
    assert all(view.plan.stages.keys() == view.live for view in life.world.views().values())


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_is_due_in_a_run_at_rest(policy: Requeue) -> None:
    life = trained(policy)
    state = life.books.state(life.world.free())
    assert not decide(state, life.offers.place) and idle(state)


def purged(life: Life) -> None:
    """Carry the deletions through their purges."""
    life.round()
    for shard in list(life.world.purging):
        life.world.end_purge(shard, life.books, works=True)
    life.round()


def test_batch_heals_when_its_window_ends_and_certifies_no_sooner() -> None:
    life = trained(POLICIES[3])
    life.world.delete([(1, 0)], [])
    purged(life)
    assert states(life) == [DeletionState.PURGED] and not life.world.training
    life.world.now += POLICIES[3].window_seconds - 1
    life.round()
    assert states(life) == [DeletionState.PURGED] and not life.world.training
    life.world.now += 1
    life.round()
    assert life.world.training, "nothing but the time has changed"
    life.settle()
    assert states(life) == [DeletionState.RESTORED]


def test_lazy_waits_a_moment_for_the_purge_since_the_best_stage_may_have_to() -> None:
    life = trained(POLICIES[1])
    life.world.delete([(1, 0)], [])
    purged(life)
    assert not life.world.training, "deep enough"
    life.world.delete([(1, 2)], [])
    life.round()
    assert 1 in life.world.purging and not life.world.training, "though a stage is missing whose data is clean"
    purged(life)
    assert {life.world.stages[name].shard for name in life.world.training.values()} == {1}
