"""The scheduler's environment without Ray and training: shard owners in this process, and simulated worker groups.

Stages take a given time on a simulated clock. This measures the real scheduler with a real ledger, at sizes that no
test machine can train.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from heapq import heapify, heappop, heappush

from benchlib.synthetic import ADAPTER, adapter_of
from s3t_ray.ledger.values import RunningStage
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, view_shard
from s3t_ray.scheduler.interfaces import Finished
from s3t_ray.train.job import StageJob, StageResult


class OwnShards:
    """See `runtime.owners.Shards`. There are no files: a purge only updates the ledger."""

    def __init__(self, run: Run, epoch: int) -> None:
        self._run = run
        self._epoch = epoch
        self._purged: dict[int, ShardView | Exception] = {}

    def views(self) -> dict[int, ShardView]:
        return {shard: view_shard(self._run, shard) for shard in (HOLDOUT_SHARD, *range(self._run.row.shards))}

    def prune(self, shards: Iterable[int]) -> dict[int, ShardView]:
        return {shard: view_shard(self._run, shard) for shard in shards}

    def start_purge(self, shard: int, stopped: tuple[str, ...]) -> None:
        run, epoch = self._run, self._epoch
        view = view_shard(run, shard)
        run.ledger.mark_purged(epoch, view.stale)
        for state in view.slices:
            if state.file_digest != state.digest:
                run.ledger.set_slice_file(epoch, shard, state.slice, f"{state.digest}.parquet", ADAPTER, state.digest)
        self._purged[shard] = view_shard(run, shard)

    def finished_purges(self) -> dict[int, ShardView | Exception]:
        done, self._purged = self._purged, {}
        return done


class NoReplicas:
    """Nobody serves."""

    def set_live(self, chains: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        return ()


class SimulatedWorkers:
    """See `runtime.workers.Workers`. Time is simulated, but follows the real clock while the scheduler computes.

    So groups wait for the scheduler as they would in a real run. A stage of depth d takes `seconds_of(d)`.
    """

    def __init__(self, groups: int, seconds_of: Callable[[int], float]) -> None:
        self.trained = 0
        self.submitted = 0
        self.on_submit: Callable[[StageJob], None] = lambda job: None
        self.idle_seconds = 0.0  # of groups, between the end of a stage and the start of the next
        self._seconds_of = seconds_of
        self._free_since = dict.fromkeys(range(groups), 0.0)
        self._ends: list[tuple[float, int, StageJob]] = []
        self._stopped: set[str] = set()
        self._now = 0.0
        self._running_since: float | None = None

    @property
    def now(self) -> float:
        """Simulated seconds since the start."""
        return self._now + (0.0 if self._running_since is None else time.perf_counter() - self._running_since)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Advance the simulated clock with the real one inside this block."""
        self._running_since = time.perf_counter()
        yield
        self._now, self._running_since = self.now, None

    def skip_to_next_end(self) -> None:
        """Advance the clock until a stage ends, unless one already has."""
        if self._ends:
            self._now = max(self._now, self._ends[0][0])

    def free(self) -> tuple[int, ...]:
        return tuple(sorted(self._free_since))

    def submit(self, group: int, job: StageJob) -> None:
        self.idle_seconds += self.now - self._free_since.pop(group)
        self.submitted += 1
        self.on_submit(job)
        heappush(self._ends, (self.now + self._seconds_of(job.depth), group, job))

    def finished(self, wait_seconds: float) -> tuple[Finished, ...]:
        done, now = [], self.now
        while self._ends and self._ends[0][0] <= now:
            end, group, job = heappop(self._ends)
            self._free_since[group] = end
            if job.stage_id in self._stopped:
                done.append(Finished(group, job.stage_id))
                continue
            self.trained += 1
            result = StageResult(job.stage_id, adapter_of(job.stage_id), 0, 0, 0, None, None, 0.0)
            done.append(Finished(group, job.stage_id, result=result))
        return tuple(done)

    def running(self) -> tuple[RunningStage, ...]:
        return ()

    def stop(self, stage_id: str) -> None:
        """Stop the stage; its group is free immediately."""
        self._stopped.add(stage_id)
        self._ends = [(self.now if job.stage_id == stage_id else end, group, job) for end, group, job in self._ends]
        heapify(self._ends)

    def close(self) -> None:
        self._ends.clear()
