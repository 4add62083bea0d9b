"""Placement against a slow, obvious checker, and whole runs in which every stage is trained once."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from random import Random

import pytest

from s3t_ray.config.schema import Config, Requeue
from s3t_ray.plan.orders import orders
from s3t_ray.plan.schedule import Assignment, Placer, ShardState, decide, healing_due
from s3t_ray.plan.stages import ShardPlan, Stage, compare, plan_shard


def _plan(shard: int, some_orders: Sequence[tuple[int, ...]]) -> ShardPlan:
    return plan_shard(shard, some_orders, {s: f"{shard}.{s}" for s in range(len(some_orders[0]))}, "recipe")


def _situation(chance: Random) -> tuple[list[ShardState], frozenset[str], list[int], frozenset[str]]:
    """Shards with random orders, gapless random progress, some ready stages in training, some blocked."""
    slices = chance.randint(1, 4)
    states, ready, names = [], [], []
    for shard in range(chance.randint(1, 4)):
        some_orders = {tuple(chance.sample(range(slices), slices)) for _ in range(chance.randint(1, 4))}
        plan = _plan(shard, sorted(some_orders, key=lambda _: chance.random()))
        have: set[str] = set()
        for chain in plan.chains:
            have.update(chain[: chance.randint(0, slices)])
        states.append(ShardState(plan, frozenset(have), chance.random() < 0.75))
        ready += [stage.id for stage in compare(plan, have).ready]
        names += list(plan.stages)
    running = set(chance.sample(ready, chance.randint(0, min(3, len(ready)))))
    blocked = set(chance.sample(names, chance.randint(0, min(3, len(names)))))
    stale = {"a stale stage that is being stopped"} if chance.random() < 0.5 else set()
    free = chance.sample(range(20), chance.randint(0, 8))
    return states, frozenset(running | stale), free, frozenset(blocked - running)


def _deepest(plan: ShardPlan, have: AbstractSet[str]) -> int:
    return max(next((i for i, stage in enumerate(chain) if stage not in have), len(chain)) for chain in plan.chains)


def _slow_choice(states: list[ShardState], taken: set[str], blocked: frozenset[str]) -> Stage | None:
    """The rules of `decide`, for one group, told plainly."""

    def startable(state: ShardState) -> list[Stage]:
        ready = compare(state.plan, state.have).ready if state.healing else ()
        return [stage for stage in ready if stage.id not in taken and stage.id not in blocked]

    shards = [state for state in states if startable(state)]
    if not shards:
        return None
    state = min(
        shards,
        key=lambda s: (_deepest(s.plan, s.have | taken), len(taken & set(s.plan.stages)), s.plan.shard),
    )
    goal = _deepest(state.plan, state.have | taken) + 1

    def rank(stage: Stage) -> tuple[float, int, int]:
        """Slices to train until a sequence through this stage has the goal's depth; deepest; first."""
        ranks = []
        for index, chain in enumerate(state.plan.chains):
            if chain[: stage.depth] != stage.chain:
                continue
            way = chain[stage.depth - 1 : goal]
            possible = goal <= len(chain) and not set(way) & blocked
            work = sum(range(stage.depth, goal + 1)) if possible else float("inf")
            ranks.append((work, -stage.depth, index))
        return min(ranks)

    return min(startable(state), key=rank)


@pytest.mark.parametrize("block", range(30))
def test_decide_follows_the_slow_rules(block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        _check_decide_follows_the_slow_rules(Random(seed))


def _check_decide_follows_the_slow_rules(chance: Random) -> None:
    states, running, free, blocked = _situation(chance)
    taken = set(running)
    expected = []
    for group in free:
        stage = _slow_choice(states, taken, blocked)
        if stage is None:
            break
        expected.append(Assignment(group, stage))
        taken.add(stage.id)
    assert list(decide(states, running, free, blocked)) == expected


@pytest.mark.parametrize("seed", range(60))
def test_a_placer_given_only_changes_decides_as_if_it_looked_at_everything(seed: int) -> None:
    """A random life of some shards: only those that changed are put again, and each round is as `decide`'s."""
    chance = Random(seed)
    states, running, _, blocked = _situation(chance)
    by_shard = {state.plan.shard: state for state in states}
    training = set(running)
    placer = Placer()
    for state in states:
        placer.put(state, training, blocked)
    for _ in range(30):
        free = list(range(chance.randint(0, 3)))
        expected = decide(list(by_shard.values()), frozenset(training), free, blocked)
        assert placer.assign(free) == expected
        training |= {assignment.stage.id for assignment in expected}
        state = by_shard[chance.choice(list(by_shard))]
        own = sorted(training & state.plan.stages.keys())
        if own and chance.random() < 0.8:  # one is published, or stopped
            name = chance.choice(own)
            training.discard(name)
            state = replace(state, have=state.have | {name} if chance.random() < 0.8 else state.have)
        elif chance.random() < 0.3:
            state = replace(state, healing=not state.healing)
        else:  # a deletion renames stages; those in training go on for a while
            digests = {s: str(chance.randint(0, 3)) for s in range(len(state.plan.orders[0]))}
            plan = plan_shard(state.plan.shard, state.plan.orders, digests, "recipe")
            state = replace(state, plan=plan, have=state.have & plan.stages.keys())
        by_shard[state.plan.shard] = state
        placer.put(state, training, blocked)


@pytest.mark.parametrize("block", range(30))
def test_decide_keeps_its_invariants(block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        _check_decide_keeps_its_invariants(Random(seed))


def _check_decide_keeps_its_invariants(chance: Random) -> None:
    states, running, free, blocked = _situation(chance)
    assignments = decide(states, running, free, blocked)
    startable = {
        stage.id: state
        for state in states
        if state.healing
        for stage in compare(state.plan, state.have).ready
        if stage.id not in running | blocked
    }
    names = [assignment.stage.id for assignment in assignments]
    assert set(names) <= set(startable) and len(set(names)) == len(names)
    assert len(names) == min(len(free), len(startable))
    assert [assignment.group for assignment in assignments] == free[: len(names)]
    dead = {  # shards that serve nothing, with nothing in training, that can start something
        state.plan.shard
        for state in startable.values()
        if not _deepest(state.plan, set(state.have)) and not running & set(state.plan.stages)
    }
    assert {assignment.stage.shard for assignment in assignments[: len(dead)]} >= set(sorted(dead)[: len(free)])


@pytest.mark.parametrize("block", range(3))
def test_a_whole_run_trains_every_wanted_stage_exactly_once(block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        _check_a_whole_run_trains_every_wanted_stage_exactly_once(Random(seed))


def _check_a_whole_run_trains_every_wanted_stage_exactly_once(chance: Random) -> None:
    states, _, free, _ = _situation(chance)
    have = {state.plan.shard: set(state.have) for state in states}
    plans = {state.plan.shard: state.plan for state in states}
    idle = set(free) or {0}
    busy: dict[int, Stage] = {}
    trained: list[str] = []
    while True:
        now = [ShardState(plan, frozenset(have[shard]), True) for shard, plan in plans.items()]
        running = frozenset(stage.id for stage in busy.values())
        for assignment in decide(now, running, sorted(idle)):
            idle.remove(assignment.group)
            busy[assignment.group] = assignment.stage
            trained.append(assignment.stage.id)
        if not busy:
            break
        group = chance.choice(sorted(busy))
        stage = busy.pop(group)
        assert stage.parent is None or stage.parent in have[stage.shard]
        have[stage.shard].add(stage.id)
        idle.add(group)
    wanted = [name for state in states for name in state.plan.stages if name not in state.have]
    assert sorted(trained) == sorted(wanted)


def test_shards_rise_together_and_a_dead_one_comes_first() -> None:
    plans = [_plan(shard, [(0, 1, 2), (1, 2, 0)]) for shard in range(3)]
    whole = frozenset(plans[0].stages)
    states = [
        ShardState(plans[0], whole - set(plans[0].chains[0][1:]), True),  # misses some, serves depth 3
        ShardState(plans[1], frozenset(plans[1].chains[1][:2]), True),  # depth 2
        ShardState(plans[2], frozenset(), True),  # dead
    ]
    chosen = [a.stage for a in decide(states, frozenset(), [7, 8, 9])]
    assert [(stage.shard, stage.slices) for stage in chosen] == [(2, (0,)), (2, (1,)), (1, (1, 2, 0))]


def test_the_nearest_sequence_heals_first_and_a_blocked_one_does_not_count() -> None:
    plan = _plan(0, [(0, 1, 2, 3), (1, 2, 3, 0)])
    have = frozenset((*plan.chains[0][:2], plan.chains[1][0]))
    state = ShardState(plan, have, True)
    assert decide([state], frozenset(), [0])[0].stage.slices == (0, 1, 2)
    blocked = frozenset([plan.chains[0][2]])
    assert decide([state], frozenset(), [0], blocked)[0].stage.slices == (1, 2)
    later = frozenset([plan.chains[0][3]])  # stage 3 of the first sequence is still the soonest gain
    assert decide([state], frozenset(), [0], later)[0].stage.slices == (0, 1, 2)
    training = frozenset([plan.chains[0][2]])
    assert decide([state], training, [0])[0].stage.slices == (1, 2)


def test_never_more_sequences_than_the_budget(make_config: Callable[..., Config]) -> None:
    config = make_config(slices=4, budget=3)
    plan = _plan(0, orders(config, 0))
    have: set[str] = set()
    while batch := decide([ShardState(plan, frozenset(have), True)], frozenset(), range(8)):
        have.update(assignment.stage.id for assignment in batch)
    assert len({plan.stages[name].chain for name in have if plan.stages[name].depth == 4}) == 3


@pytest.mark.parametrize(
    ("policy", "depth", "complete", "seconds", "due"),
    [
        (Requeue(policy="eager"), 3, True, 0.0, True),
        (Requeue(policy="lazy", floor=2), 2, True, 1e9, False),
        (Requeue(policy="lazy", floor=2), 1, True, 0.0, True),
        (Requeue(policy="lazy", floor=2), 2, False, None, True),  # the first training
        (Requeue(policy="lazy", floor=0), 0, True, 0.0, False),
        (Requeue(policy="batch", window_seconds=60), 0, True, 59.9, False),
        (Requeue(policy="batch", window_seconds=60), 3, True, 60.0, True),
        (Requeue(policy="batch", window_seconds=60), 3, True, None, True),  # a raised budget
        (Requeue(policy="batch", window_seconds=60), 0, False, 0.0, True),
    ],
)
def test_healing_due(policy: Requeue, depth: int, complete: bool, seconds: float | None, due: bool) -> None:
    assert healing_due(policy, depth, complete, seconds) is due
