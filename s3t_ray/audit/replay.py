"""Replay: retrain live stages from only the base and the retained rows, and compare bytes.

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

    Returns all stages if there are fewer. Prefers deep ones, because a stage depends on all its ancestors. Pure; the
    same seed chooses the same stages.
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
"""Storage URI for the copies of a replay, while it runs."""


@contextmanager
def beside_the_run(run: Run) -> Iterator[str]:
    """In the run's storage, where the purge of a deletion during the replay also erases them."""
    # Not a temporary name, because a purge must find these copies if this process is killed.
    folder = f"{layout.REPLAY}/{secrets.token_hex(4)}"
    try:
        yield f"{run.location.storage_uri}/{folder}"
    finally:
        run.store.delete(folder)


@contextmanager
def on_this_machine(run: Run) -> Iterator[str]:
    """On this machine, for auditors who cannot write to the run or have a copy of it."""
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
    """Retrain `count` live stages, and compare each adapter with the published one.

    ConfigError: no stage is live. TrainError: a replay cannot be trained.
    """
    seed = secrets.randbits(32)  # unpredictable, so nobody can prepare for the chosen stages
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
    """Compare the published stage with the one retrained in `store`.

    If the published one is no longer a valid stage, it differs, so that the audit can still report its other findings.
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
    """Different conditions of those parents whose bytes differ, since the replay trained this stage on top of them.

    A run that moved to other hardware heals on top of stages from the former hardware. Parents with equal bytes excuse
    nothing.
    """
    for ancestor in stage.ancestors:
        again = PublishedStage.open(store, ancestor)
        second = _files(again)
        try:
            published = PublishedStage.open(run.store, ancestor)
            first = _files(published)
        except StageDamaged:
            continue  # reported separately
        if not same_files(first, second):
            for told in mismatches(published.manifest, again.manifest):
                yield f"stage {ancestor[:12]} below it: {told}"


def _files(stage: PublishedStage) -> dict[str, bytes]:
    """The stage's current bytes, whether or not they match the published digests: a changed file means "differs".

    StageDamaged: a file is missing or too large.
    """
    return {name: stage.as_it_is(name) for name in stage.files}


def largest_difference(files: Sequence[bytes]) -> float:
    """Largest difference between corresponding weights of two adapters; infinite if they do not correspond.

    The published file is in the storage, so its content may be arbitrary.
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
