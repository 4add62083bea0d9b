"""Worker groups on Ray: placement groups of rank actors that keep the base model loaded.

In: the number of groups, and stages to train. Out: finished stages. A dead group is restarted; its stage
is reported as lost, and the scheduler decides what to do.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from s3t_ray.config.load import dump_config
from s3t_ray.config.schema import Config
from s3t_ray.errors import ClusterError, S3TError
from s3t_ray.ledger.values import RunningStage
from s3t_ray.plan.resources import bundles
from s3t_ray.runtime.connect import NAMESPACE, actor_name, ray_logs
from s3t_ray.runtime.placement_groups import end_orphans, states
from s3t_ray.runtime.rank import Rank
from s3t_ray.runtime.rank_progress import ProgressReports, running_stage
from s3t_ray.runtime.stage_failures import explain, keep, original
from s3t_ray.scheduler.interfaces import Finished
from s3t_ray.train.job import StageJob

RECYCLE_AFTER_STAGES = 500
"""A group is restarted after this many stages, because DeepSpeed leaks about 1 MB per engine (DeepSpeed issue 7204)."""

FAILED_STARTS = 5
"""Maximum consecutive failed starts of a group."""


@dataclass
class _Group:
    """One worker group: starting, idle, or training `job`."""

    index: int
    placement: PlacementGroup
    ranks: list[Any]
    starting: list[ray.ObjectRef] = field(default_factory=list)
    job: StageJob | None = None
    futures: list[ray.ObjectRef] = field(default_factory=list)
    trained: int = 0


class RayWorkers:
    """The real worker groups (see `scheduler.interfaces.WorkerGroups`).

    `wake` ends a wait for stages. It is set when a stage ends, and by anyone who has news for the scheduler.
    """

    def __init__(self, config: Config, base: str, count: int, wake: threading.Event | None = None) -> None:
        self._config = config
        self._wake = wake or threading.Event()
        self._yaml = dump_config(config)
        self._base = base
        self._failed_starts: dict[int, int] = {}
        self._name = actor_name("group", config.storage.uri)
        self._token = secrets.token_hex(4)
        self._started = 0
        end_orphans(self._name)
        self._wanted = count
        self._groups = {index: self._start(index) for index in range(count)}
        self._progress = ProgressReports()

    @property
    def count(self) -> int:
        """The number of groups, including those that are starting."""
        return len(self._groups)

    def waiting(self) -> int:
        """The number of groups without room, because nodes are missing or in use."""
        starting = [group.placement for group in self._groups.values() if group.starting]
        now = states() if starting else {}
        return sum(now.get(placement.id.hex()) == "PENDING" for placement in starting)

    def resize(self, count: int, rooms: Iterable[PlacementGroup] = ()) -> None:
        """Change the number of groups: add groups immediately, and remove groups as their stages end.

        `rooms`: placement groups for the first new groups, at most as many as new groups.
        """
        self._wanted = count
        reserved = iter(rooms)
        unused = (index for index in itertools.count() if index not in self._groups)
        while len(self._groups) < count:
            index = next(unused)
            self._groups[index] = self._start(index, next(reserved, None))
        self._trim()

    def _trim(self) -> None:
        """End surplus groups: first those that wait for room, then idle ones."""
        surplus = len(self._groups) - self._wanted
        if surplus <= 0:
            return
        resting = [group for group in self._groups.values() if group.job is None]
        for group in sorted(resting, key=lambda group: (not group.starting, -group.index))[:surplus]:
            self._end(group)
            del self._groups[group.index]

    def free(self) -> tuple[int, ...]:
        self._trim()
        return tuple(g.index for g in list(self._groups.values()) if g.job is None and self._ready(g))

    def submit(self, group: int, job: StageJob) -> None:
        target = self._groups[group]
        target.job = job
        target.futures = [self._watched(rank.train.remote(job)) for rank in target.ranks]

    def finished(self, wait_seconds: float) -> tuple[Finished, ...]:
        pending = [future for g in self._groups.values() for future in (g.futures or g.starting)]
        if not pending:
            return ()
        # Do not wait in `ray.wait`, which a deletion could not interrupt.
        self._wake.wait(wait_seconds)
        self._wake.clear()
        # Ask once for all groups: one call per group would be slow with hundreds of groups.
        ended = set(ray.wait(pending, num_returns=len(pending), timeout=0)[0])
        done = []
        for group in list(self._groups.values()):
            if group.job is not None and not ended.isdisjoint(group.futures):
                outcome = self._outcome(group, group.job)
                if outcome is not None:
                    done.append(outcome)
        return tuple(done)

    def running(self) -> tuple[RunningStage, ...]:
        busy = {g.index: g for g in self._groups.values() if g.job is not None}
        known = self._progress.of({index: group.ranks[0] for index, group in busy.items()})
        return tuple(running_stage(index, group.job, known.get(index)) for index, group in busy.items() if group.job)

    def stop(self, stage_id: str) -> None:
        for group in self._groups.values():
            if group.job is not None and group.job.stage_id == stage_id:
                for rank in group.ranks:
                    rank.stop.remote(stage_id)

    def close(self) -> None:
        for group in self._groups.values():
            self._end(group)
        self._groups.clear()

    def _start(self, index: int, room: PlacementGroup | None = None) -> _Group:
        config = self._config
        self._started += 1
        placement = room or placement_group(
            bundles(config),
            strategy=config.workers.strategy.upper(),
            name=f"{self._name}-{self._token}-{self._started}",
        )
        actor = ray.remote(concurrency_groups={"control": 4})(Rank)
        ranks = [
            actor.options(
                # The name is for `ray list actors`. It is unique because a dead rank has a successor.
                name=f"rank-{config.name}-group-{index}-{number}-{self._token}-{self._started}",
                namespace=NAMESPACE,
                num_cpus=config.workers.cpus_per_rank,
                num_gpus=config.workers.gpus_per_rank,
                max_concurrency=1,
                runtime_env={"env_vars": _rank_environment(config)},
                scheduling_strategy=PlacementGroupSchedulingStrategy(placement, placement_group_bundle_index=number),
            ).remote(self._yaml, self._base, config.storage.uri, number, config.engine.ranks)
            for number in range(config.engine.ranks)
        ]
        meeting = ranks[0].rendezvous.options(concurrency_group="control").remote()
        return _Group(
            index,
            placement,
            [_Handle(rank) for rank in ranks],
            [self._watched(rank.start.remote(meeting)) for rank in ranks],
        )

    def _watched(self, future: ray.ObjectRef) -> ray.ObjectRef:
        """`future`, with a callback that sets `wake` when it succeeds or fails."""
        future.future().add_done_callback(lambda _: self._wake.set())
        return future

    def _ready(self, group: _Group) -> bool:
        """Whether every rank has loaded the base. Restarts a group if a rank died.

        Raises the S3TError of a rank that cannot start, and ClusterError after FAILED_STARTS deaths in a row.
        """
        if not group.starting:
            return True
        done, waiting = ray.wait(group.starting, num_returns=len(group.starting), timeout=0)
        try:
            ray.get(done)
        except RayError as error:
            cause = original(error)
            if isinstance(cause, S3TError):
                raise cause from error
            failed = self._failed_starts[group.index] = self._failed_starts.get(group.index, 0) + 1
            if failed > FAILED_STARTS:
                raise ClusterError(
                    f"worker group {group.index} failed to start {failed} times in a row: {cause}",
                    "check Ray's logs of the Rank actors: out of memory, a lost node, or a library that cannot be "
                    "loaded",
                ) from error
            self._restart(group)
            return False
        group.starting = waiting
        if not waiting:
            self._failed_starts.pop(group.index, None)
        return not waiting

    def _outcome(self, group: _Group, job: StageJob) -> Finished | None:
        """The outcome of the group's stage; None while no rank has failed and some are still training."""
        done, waiting = ray.wait(group.futures, num_returns=len(group.futures), timeout=0)
        results = []
        for future in done:
            try:
                results.append(ray.get(future))
            except RayError as error:
                return self._failure(group, job, error)
        if waiting:
            return None
        result = next((r for r in results if r is not None), None)
        group.job, group.futures = None, []
        group.trained += 1
        if group.trained >= RECYCLE_AFTER_STAGES:
            self._restart(group)
        return Finished(group.index, job.stage_id, result=result)

    def _failure(self, group: _Group, job: StageJob, error: RayError) -> Finished:
        cause = original(error)
        # If another rank died, this rank sees a broken connection, which is not an error of the stage.
        lost = not isinstance(error, RayTaskError) or (len(group.ranks) > 1 and not isinstance(cause, S3TError))
        if lost or len(group.ranks) > 1:
            self._restart(group)  # other ranks may be stuck in a collective forever
        else:
            group.job, group.futures = None, []
        failure = explain(error, lost)
        told = failure.told(keep(failure, ray_logs(), job.stage_id))
        return Finished(group.index, job.stage_id, error=told, lost=lost)

    def _restart(self, group: _Group) -> None:
        self._end(group)
        self._groups[group.index] = self._start(group.index)

    def _end(self, group: _Group) -> None:
        for rank in group.ranks:
            ray.kill(rank.actor)
        remove_placement_group(group.placement)


class _Handle:
    """An actor handle whose control calls do not queue behind training."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.train = actor.train
        self.stop = actor.stop.options(concurrency_group="control")
        self.progress = actor.progress.options(concurrency_group="control")


def _rank_environment(config: Config) -> dict[str, str]:
    # Thread counts are part of the recipe, and must be set before torch starts its thread pools.
    threads = str(config.engine.threads)
    accelerator = {} if config.workers.gpus_per_rank else {"DS_ACCELERATOR": "cpu"}
    return {
        **accelerator,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        # Packs differ in length, and the plan's memory estimate assumes little fragmentation.
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
