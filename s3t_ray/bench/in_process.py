"""The scheduler's surroundings without Ray and without training: shard owners in this process, worker
groups whose stages take a given time on a clock of their own.

For measuring the real scheduler, over a real ledger, at sizes that no test machine can train.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from s3t_ray.bench.synthetic import ADAPTER
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.runtime.reports import RunningStage
from s3t_ray.runtime.run import Run
from s3t_ray.runtime.view import ShardView, view_shard
from s3t_ray.runtime.workers import Finished
from s3t_ray.train.job import StageJob, StageResult



class OwnShards:
    """See `runtime.owners.Shards`. There are no bytes: a purge only says so in the ledger."""

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


@dataclass
class SimulatedWorkers:
    """See `runtime.workers.Workers`. A stage of depth d takes `seconds_of(d)` of the clock `now`."""

    groups: int
    seconds_of: Callable[[int], float]
    now: float = 0.0
    trained: int = 0
    submitted: int = 0
    most_training: int = 0
    busy_seconds: float = 0.0
    _free: set[int] = field(default_factory=set)
    _ends: list[tuple[float, int, StageJob]] = field(default_factory=list)
    _stopped: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._free = set(range(self.groups))

    @property
    def next_end(self) -> float | None:
        """When the next stage ends; None: nothing is in training."""
        return self._ends[0][0] if self._ends else None

    @property
    def training(self) -> int:
        return self.groups - len(self._free)

    def free(self) -> tuple[int, ...]:
        return tuple(sorted(self._free))

    def submit(self, group: int, job: StageJob) -> None:
        self._free.remove(group)
        self.submitted += 1
        heappush(self._ends, (self.now + self.seconds_of(job.depth), group, job))
        self.most_training = max(self.most_training, self.training)

    def advance(self, to: float) -> None:
        """Let time pass."""
        self.busy_seconds += self.training * (to - self.now)
        self.now = to

    def finished(self, wait_seconds: float) -> tuple[Finished, ...]:
        done = []
        while self._ends and self._ends[0][0] <= self.now:
            _, group, job = heappop(self._ends)
            self._free.add(group)
            if job.stage_id in self._stopped:
                done.append(Finished(group, job.stage_id))
                continue
            self.trained += 1
            result = StageResult(job.stage_id, ADAPTER, 0, 0, 0, None, None, 0.0)
            done.append(Finished(group, job.stage_id, result=result))
        return tuple(done)

    def running(self) -> tuple[RunningStage, ...]:
        return ()

    def stop(self, stage_id: str) -> None:
        """It leaves its group at once."""
        self._stopped.add(stage_id)
        self._ends = [(self.now if job.stage_id == stage_id else end, group, job) for end, group, job in self._ends]
        self._ends.sort()

    def close(self) -> None:
        self._ends.clear()
