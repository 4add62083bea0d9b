"""Replay: retrain live stages from nothing but the base and the retained rows, and compare bytes.

The whole chain of each chosen stage is retrained, never taken from the run, with recomputed hidden states, in its own
store. The store is erased afterwards. If it is inside the run's storage, the purge of a deletion during the replay
erases it too: the replay then fails, and what its process still writes is erased when it ends.
"""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

from s3t_ray.audit.verdict import judge, mismatches, same_files
from s3t_ray.config.schema import Config, Storage
from s3t_ray.errors import ConfigError, StageDamaged, TrainError
from s3t_ray.plan.stages import Stage
from s3t_ray.run.machine_scratch import machine_scratch
from s3t_ray.run.reports import ReplayedStage, Verdict
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder
from s3t_ray.run.shard_view import ShardView
from s3t_ray.run.stored_boundaries import with_boundaries
from s3t_ray.runtime.connect import connected
from s3t_ray.scheduler.interfaces import WorkerGroups
from s3t_ray.scheduler.requeue import stage_job
from s3t_ray.store import layout
from s3t_ray.store.manifest import ADAPTER_FILE
from s3t_ray.store.published_stage import PublishedStage
from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob


def choose_stages(views: Mapping[int, ShardView], count: int, seed: int) -> tuple[Stage, ...]:
    """`count` live stages in whole chains: every chosen stage's ancestors are chosen too, and come before it.

    All of them when there are fewer. Deep ones are preferred: a stage rests on all that stands above it in
    its chain. Pure; the same seed chooses the same stages.
    """
    dice = random.Random(seed)
    chosen: dict[str, Stage] = {}
    candidates = [view.plan.stages[name] for view in views.values() for name in view.plan.stages if name in view.live]
    dice.shuffle(candidates)
    for depth in range(min(count, max((stage.depth for stage in candidates), default=0)), 0, -1):
        for stage in candidates:
            chain = [views[stage.shard].plan.stages[name] for name in stage.chain]
            fresh = [part for part in chain if part.id not in chosen]
            if len(fresh) == depth and len(chosen) + depth <= count:
                chosen.update((part.id, part) for part in fresh)
    return tuple(sorted(chosen.values(), key=lambda stage: (stage.shard, stage.depth, stage.slices)))


Place = Callable[[Run], AbstractContextManager[str]]
"""Where the copies of a replay lie, while it lasts: the URI of a storage."""


@contextmanager
def beside_the_run(run: Run) -> Iterator[str]:
    """In the run's storage, where the purge of a deletion that comes meanwhile erases them too."""
    # A name of its own, not a temporary's: a purge must find these copies, should this process be killed.
    folder = f"{layout.REPLAY}/{secrets.token_hex(4)}"
    try:
        yield f"{run.location.storage_uri}/{folder}"
    finally:
        run.store.delete(folder)


@contextmanager
def on_this_machine(run: Run) -> Iterator[str]:
    """Nowhere near the run: for who may not write there, or looks at a copy."""
    with machine_scratch("replay") as folder:
        yield folder


def replay_stages(
    run: Run,
    views: Mapping[int, ShardView],
    count: int,
    address: str | None,
    watch: Callable[[str], None],
    place: Place,
) -> tuple[ReplayedStage, ...]:
    """Train `count` live stages again and compare each adapter with the published one.

    Raises ConfigError when no stage is live, TrainError when a replay cannot be trained.
    """
    seed = secrets.randbits(32)  # nobody can prepare for the stages that will be looked at
    stages = choose_stages(views, count, seed)
    if not stages:
        raise ConfigError("no stage is live: there is nothing to replay", "train the run first")
    with place(run) as root:
        store = Store.open(root)
        config = with_boundaries(run).model_copy(update={"storage": Storage(uri=root)})
        with connected(address):
            workers = group_for(config, str(run.base), 1)
            try:
                for stage in stages:
                    job = stage_job(run, views[stage.shard], stage)
                    watch(f"replaying shard {stage.shard}, slices {list(stage.slices)}: {stage.id[:12]}")
                    _copy_slices(run, store, job)
                    _train(workers, job)
            finally:
                workers.close()
        return tuple(compared(run, store, stage) for stage in stages)


def _copy_slices(run: Run, store: Store, job: StageJob) -> None:
    for part in job.slices:
        if not store.exists(part.path):
            with scratch_folder(run, "copy") as folder:
                store.upload(run.store.fetch(part.path, folder), part.path)


def group_for(config: Config, base: str, groups: int) -> WorkerGroups:
    """Worker groups on the cluster that this process is connected to."""
    from s3t_ray.runtime.worker_groups import RayWorkers

    return RayWorkers(config, base, groups)


def _train(workers: WorkerGroups, job: StageJob) -> None:
    pause = threading.Event()
    while not workers.free():
        pause.wait(0.1)
    workers.submit(0, job)
    while not (done := workers.finished(1.0)):
        pass
    if done[0].result is None:
        raise TrainError(
            f"the replay of stage {job.stage_id[:12]} failed: {done[0].error}", "fix the cause and verify again"
        )


def compared(run: Run, store: Store, stage: Stage) -> ReplayedStage:
    """The stage as it is published, against the one that was trained again in `store`.

    Where the published one is not a stage any more it differs, whatever was changed of it: the other findings of an
    audit must not be lost for it.
    """
    again = PublishedStage.open(store, stage.id)
    second = _files(again)
    try:
        published = PublishedStage.open(run.store, stage.id)
        first = _files(published)
    except StageDamaged:
        return ReplayedStage(
            stage_id=stage.id,
            shard=stage.shard,
            slices=stage.slices,
            verdict=Verdict.DIFFERS,
            largest_difference=float("inf"),
            mismatches=(),
        )
    equal = same_files(first, second)
    unlike = mismatches(published.manifest, again.manifest)
    if not equal:
        unlike = (*unlike, *_unlike_below(run, store, stage))
    return ReplayedStage(
        stage_id=stage.id,
        shard=stage.shard,
        slices=stage.slices,
        verdict=judge(equal, unlike),
        largest_difference=largest_difference([first[ADAPTER_FILE], second[ADAPTER_FILE]]),
        mismatches=unlike,
    )


def _unlike_below(run: Run, store: Store, stage: Stage) -> Iterator[str]:
    """What is unlike of the stages below it that gave other bytes: the replay trained it on top of those.

    A run that was moved to other hardware heals on top of stages of the former one. A stage below that is equal
    excuses nothing.
    """
    for ancestor in stage.ancestors:
        again = PublishedStage.open(store, ancestor)
        second = _files(again)
        try:
            published = PublishedStage.open(run.store, ancestor)
            first = _files(published)
        except StageDamaged:
            continue  # a finding of its own
        if not same_files(first, second):
            for told in mismatches(published.manifest, again.manifest):
                yield f"stage {ancestor[:12]} below it: {told}"


def _files(stage: PublishedStage) -> dict[str, bytes]:
    """The bytes that are there, whether or not they are those published: a changed file differs, which is a verdict.

    StageDamaged: one is missing, or larger than any.
    """
    return {name: stage.as_it_is(name) for name in stage.files}


def largest_difference(files: Sequence[bytes]) -> float:
    """Between two weights of the same place in two adapters; infinite: they have not the same places, or one is none.

    The published one lies in the storage, where anybody may have put anything in its place.
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        first, second = (load(data) for data in files)
    except SafetensorError:
        return float("inf")
    if {name: each.shape for name, each in first.items()} != {name: each.shape for name, each in second.items()}:
        return float("inf")
    return max((float(np.abs(first[name] - second[name]).max()) for name in first if first[name].size), default=0.0)
