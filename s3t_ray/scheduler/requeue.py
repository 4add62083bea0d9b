"""Re-queue: which shards may train, what they can train, and which stages start on the free groups.

Pure, except for `first_sequences`, which reads the ledger, and `Offers`, which caches its answer for each shard, so
that a round over a thousand shards only looks at those that changed. `plan/schedule.py` orders the stages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass

from s3t_ray.config.recipe import RECIPE_FORMAT, recipe
from s3t_ray.config.schema import Config
from s3t_ray.errors import StoreError, TrainError
from s3t_ray.ledger.rows.failure_rows import FailureSubject
from s3t_ray.ledger.values import DeletionState, SliceState
from s3t_ray.plan import schedule
from s3t_ray.plan.identity import recipe_digest
from s3t_ray.plan.schedule import Assignment, Placer, ShardState, healing_due
from s3t_ray.plan.stages import HOLDOUT_SHARD, Stage
from s3t_ray.run.integrity.seal_keys import slice_key, stage_key
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, Views, view_shard
from s3t_ray.scheduler.policy.state import State, shards_hit, shards_to_purge
from s3t_ray.train.job import SliceInput, StageJob


@dataclass(frozen=True)
class ShardOffer:
    """Inputs of placement for one shard."""

    shard: ShardState
    running: frozenset[str]
    """Stages of the shard that are in training."""
    blocked: frozenset[str]
    """Stages that must wait: for a purge, or after a failure."""


def healing(state: State, view: ShardView) -> bool:
    """Whether the policy lets the shard train its missing stages now."""
    since = state.unhealed_since.get(view.plan.shard)
    age = None if since is None else state.now - since
    return healing_due(state.policy, view.depth, view.ever_complete, age)


def healed(state: State, view: ShardView) -> bool:
    """Whether nothing is missing, or the policy accepts it (lazy, above its floor)."""
    if view.plan.shard == HOLDOUT_SHARD or not view.missing:
        return True
    return state.policy.policy == "lazy" and not healing(state, view)


def offer(state: State, view: ShardView, running: Iterable[str]) -> ShardOffer:
    """The offer of a shard; `running`: its stages in training."""
    # lazy heals with few stages, and the best of them may have to wait briefly for the purge.
    lazy = state.policy.policy == "lazy" and view.ever_complete
    better_after_purge = lazy and bool(view.unpurged) and not state.purge_given_up(view.plan.shard)
    failed = state.waiting_stages & view.plan.stages.keys()
    may_train = healing(state, view) and not better_after_purge
    return ShardOffer(ShardState(view.plan, view.live, may_train), frozenset(running), failed | view.unpurged)


def place(state: State) -> tuple[Assignment, ...]:
    """The stages to start now. Looks at every shard."""
    running = _by_shard(state.training.values())
    offers = [offer(state, view, running[shard]) for shard, view in state.views.items() if shard != HOLDOUT_SHARD]
    blocked = frozenset[str]().union(*(each.blocked for each in offers))
    return schedule.decide([each.shard for each in offers], frozenset(state.training), state.free, blocked)


class Offers:
    """`place` for many rounds: the same answers, but only looks at shards that changed since the last call.

    The returned stages count as in training from then on.
    """

    def __init__(self, views: Views) -> None:
        self._views = views
        self._placer = Placer()
        self._made: dict[int, tuple[ShardView, ShardOffer]] = {}
        self._waiting: frozenset[FailureSubject] = frozenset()

    def place(self, state: State) -> tuple[Assignment, ...]:
        """The stages to start now. `state.views` must be the views given to the constructor."""
        if not state.free:
            return ()
        changed = self._views.take_changed("place") | state.unhealed_since.keys()  # windows end without an event
        if state.waiting != self._waiting:  # so does a back-off
            self._waiting, changed = state.waiting, set(state.views)
        running = _by_shard(state.training.values()) if changed else {}
        for shard in changed - {HOLDOUT_SHARD}:
            self._offer(state, state.views[shard], running.get(shard, ()))
        assigned = self._placer.assign(state.free)
        for each in assigned:  # the placer's knowledge of these shards is now newer than their offers
            self._made.pop(each.stage.shard, None)
        return assigned

    def _offer(self, state: State, view: ShardView, running: Collection[str]) -> None:
        made = offer(state, view, running)
        known = self._made.get(view.plan.shard)
        if known is None or known[0] is not view or known[1] != made:
            self._made[view.plan.shard] = (view, made)
            self._placer.put(made.shard, made.running, made.blocked)


def idle(state: State) -> bool:
    """Whether nothing is in training or to place and no deletion is unfinished, apart from what was given up."""
    return (
        not state.training
        and not state.purging
        and all(state.purge_given_up(shard) for shard in state.stale)
        and _only_given_up_left(state)
        and not any(trainable(view, _hopeless(state, view)) for view in state.views.values() if healing(state, view))
    )


def sequences_in_need(state: State) -> int:
    """Sequences with a stage to train or in training: the maximum number of groups with work."""
    views = state.views.values()
    return sum(sequences_to_train(view, _hopeless(state, view)) for view in views if healing(state, view))


def trainable(view: ShardView, hopeless: Set[str]) -> bool:
    """Whether a stage is missing that does not build on a hopeless stage."""
    if not hopeless:
        return bool(view.missing)
    return any(hopeless.isdisjoint(view.plan.stages[name].chain) for name in view.missing)


def sequences_to_train(view: ShardView, hopeless: Set[str]) -> int:
    """Number of the shard's sequences whose next stage can be trained or is in training."""
    if not view.missing:
        return 0
    return sum(
        depth < len(chain) and hopeless.isdisjoint(chain[: depth + 1])
        for depth, chain in zip(view.depths, view.plan.chains, strict=True)
    )


def first_sequences(run: Run) -> int:
    """Sequences with something to train, by the healing policy, for a scheduler of `run` that starts now."""
    views = (view_shard(run, shard) for shard in range(run.row.shards))
    policy = run.config.requeue
    return sum(
        sequences_to_train(view, frozenset())
        for view in views
        if healing_due(policy, view.depth, view.ever_complete, None)
    )


def _hopeless(state: State, view: ShardView) -> frozenset[str]:
    """Stages of the shard that cannot be trained: given up, or waiting for a purge that was given up."""
    given_up = state.given_up_stages
    return given_up | view.unpurged if state.purge_given_up(view.plan.shard) else given_up


def _only_given_up_left(state: State) -> bool:
    """Whether every deletion waits only for a stage or purge that was given up, or for another such deletion."""
    stuck: set[str] = set()
    for row in state.deletions:
        match row.state:
            case DeletionState.PRUNED:
                own = any(state.purge_given_up(shard) for shard in shards_to_purge(row))
            case DeletionState.PURGED:
                own = any(state.views[shard].missing & state.given_up_stages for shard in shards_hit(row))
            case _:
                own = False
        if not own and stuck.isdisjoint(row.waits_for):
            return False
        stuck.add(row.receipt.request_id)
    return True


def _by_shard(stages: Iterable[Stage]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    for stage in stages:
        found[stage.shard].append(stage.id)
    return found


def stage_job(run: Run, view: ShardView, stage: Stage) -> StageJob:
    """The job of `stage`: the files of its slices from the ledger, and the keys that seal its results."""
    states = {state.slice: state for state in view.slices}
    return StageJob(
        stage_id=stage.id,
        recipe_digest=run.row.recipe_digest,
        base_digest=run.row.base_digest,
        shard=stage.shard,
        slices=tuple(_input(run, states[index]) for index in stage.slices),
        parents=stage.ancestors,
        seal_key=stage_key(run, stage.id),
    )


def check_recipe_of(job: StageJob, config: Config) -> None:
    """TrainError unless this version of the code and `config` match the recipe in the stage's name.

    A deletion also heals runs that another version started, or whose config was edited in the storage. This check
    alone prevents weights under a wrong name there.
    """
    ours = recipe_digest(recipe(config, job.base_digest))
    if ours != job.recipe_digest:
        raise TrainError(
            f"stage {job.stage_id[:12]} is named by recipe {job.recipe_digest[:12]}, but this config and this version "
            f"(recipe format {RECIPE_FORMAT}) train recipe {ours[:12]}",
            "run `s3t train` with the run's config, which names what differs",
        )


def _input(run: Run, state: SliceState) -> SliceInput:
    if state.file is None or state.file_sha256 is None or state.file_digest != state.digest:
        raise StoreError(
            f"slice {state.slice} of shard {state.shard} has no clean file, so no stage may train on it",
            "wait for its purge, or run `s3t train` again to finish reading the data",
        )
    key = slice_key(run, state.shard, state.slice, state.digest)
    return SliceInput(state.slice, state.file, state.file_sha256, state.digest, state.records, key)
