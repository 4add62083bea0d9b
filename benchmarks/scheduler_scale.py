"""Measures how the scheduler scales: busy worker groups, the cost of a reconcile, a plan for 100 million records.

    python benchmarks/scheduler_scale.py            # minutes, 3 GB of memory, 1 GB of disk in --folder
    python benchmarks/scheduler_scale.py --quick    # a tenth of the size

The real scheduler with a real SQLite ledger, and stages that take simulated time:
1. 1,000 shards on 512 worker groups. The groups wait while the scheduler computes.
2. The rounds that take one deletion from receipt to purge and re-queue, in runs with ten thousand and with a million
   accepted stages.
3. Plans alone.
Writes benchmarks/results/scheduler_scale.json.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from benchlib.in_process import NoReplicas, OwnShards, SimulatedWorkers
from benchlib.measure import Latency, latency
from benchlib.synthetic import Sizes, accept_all, make_run, record_id
from rich.console import Console

from s3t_ray.config.schema import ModelShape
from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger.values import DeletionState, StageState
from s3t_ray.plan.orders import orders
from s3t_ray.plan.overview import plan_overview
from s3t_ray.plan.stages import plan_shard
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.scheduler.scheduler import Scheduler
from s3t_ray.sweep.result_file import save
from s3t_ray.train.job import StageJob

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Busy:
    """A first training of all shards."""

    shards: int
    groups: int
    sequences: int  # per shard, at most
    stage_seconds: float  # simulated, of a stage of depth 1; depth d takes d times as long
    spread: float  # relative spread of stage times; with 0, they end at the same instants
    stages: int
    simulated_seconds: float  # until the last stage was placed
    scheduler_seconds: float  # computing time of the scheduler
    busy: float  # share of the groups' time
    most_sequences: int  # of any shard, in training or trained, checked whenever a stage starts


@dataclass(frozen=True)
class Reconcile:
    """The scheduler's rounds for one deletion in a fully trained run."""

    shards: int
    stages: int
    deletion: Latency  # all rounds from the receipt until purged, placed and displayed
    idle_round: Latency  # nothing to do


@dataclass(frozen=True)
class Planned:
    records: int
    shards: int
    slices: int
    budget: int
    stages: int
    overview_seconds: float
    plan_seconds: float  # every stage of every shard named
    update_seconds: float  # one shard, after a deletion
    memory_gib: float


@dataclass(frozen=True)
class Result:
    """Written after each part; a missing part was not measured."""

    planned: Planned | None = None
    reconcile: tuple[Reconcile, ...] = ()
    busy: tuple[Busy, ...] = ()

    @property
    def growth(self) -> float | None:
        """Time of a deletion's rounds in the larger run, relative to the smaller."""
        if len(self.reconcile) < 2:
            return None
        return self.reconcile[-1].deletion.median_ms / self.reconcile[0].deletion.median_ms


def keep_busy(folder: Path, shards: int, groups: int, stage_seconds: float, spread: float) -> Busy:
    """Train everything; the simulated clock keeps running while the scheduler computes."""
    slices, budget = 4, 2
    random = Random(1)
    with make_run(folder, Sizes(4 * shards * slices, shards, slices, budget)) as run:
        epoch = run.ledger.take_lease("benchmark")
        workers = SimulatedWorkers(groups, lambda depth: depth * stage_seconds * random.uniform(1 - spread, 1 + spread))
        sequences = _Sequences()
        workers.on_submit = sequences.begun
        scheduler = Scheduler(run, epoch, workers, OwnShards(run, epoch), NoReplicas(), lambda: workers.now)
        wanted = sum(len(view.plan.stages) for view in scheduler.views.values())
        computed, until, idle = 0.0, 0.0, 0.0
        while workers.trained < wanted:
            began = time.perf_counter()
            with workers.computing():
                scheduler.tick(0)
            computed += time.perf_counter() - began
            if workers.submitted < wanted:
                until, idle = workers.now, workers.idle_seconds
            workers.skip_to_next_end()
        most = sequences.most
        if most != max(_trained_sequences(run, shard) for shard in range(shards)) or most > budget:
            raise VerificationFailed(f"a shard has {most} sequences, its budget is {budget}", "report this")
    return Busy(
        shards, groups, budget, stage_seconds, spread, wanted, until, computed, 1 - idle / (groups * until), most
    )


class _Sequences:
    """Counts the sequences of each shard in training or trained: paths that are not a prefix of another."""

    def __init__(self) -> None:
        self.most = 0
        self._ways: dict[int, set[tuple[int, ...]]] = defaultdict(set)

    def begun(self, job: StageJob) -> None:
        ways = self._ways[job.shard]
        ways.add(tuple(part.slice for part in job.slices))
        self.most = max(self.most, _ends(ways))


def _ends(ways: Collection[tuple[int, ...]]) -> int:
    parents = {way[:-1] for way in ways}
    return sum(way not in parents for way in ways)


def _trained_sequences(run: Run, shard: int) -> int:
    return _ends([row.slices for row in run.ledger.stages(shard, StageState.LIVE)])


def reconcile(folder: Path, shards: int, deletions: int, slices: int = 16, budget: int = 64) -> Reconcile:
    """Delete one record after another from a fully trained run."""
    sizes = Sizes(4 * shards * slices, shards, slices, budget)
    with make_run(folder, sizes, requeue={"policy": "eager"}) as run:
        epoch = run.ledger.take_lease("benchmark")
        workers = SimulatedWorkers(512, lambda depth: 1e9)
        scheduler = Scheduler(run, epoch, workers, OwnShards(run, epoch), NoReplicas(), lambda: workers.now)
        stages = accept_all(run)
        scheduler.views.put(OwnShards(run, epoch).views())
        scheduler.tick(0)  # writes every shard's depth to the history, once
        idle = [_seconds(scheduler) for _ in range(deletions)]
        times = []
        for number in range(deletions):
            receipt = deletion.accept(run, [record_id(number * (shards + 1))], [])
            spent = 0.0
            while run.ledger.deletion(receipt.request_id).state.rank < DeletionState.PURGED.rank:
                spent += _seconds(scheduler)
            times.append(spent + _seconds(scheduler))
    return Reconcile(shards, stages, latency(times), latency(idle))


def _seconds(scheduler: Scheduler) -> float:
    began = time.perf_counter()
    scheduler.tick(0)
    return time.perf_counter() - began


def plan(folder: Path, shards: int, slices: int, budget: int, records: int) -> Planned:
    """Only names of stages, costs and forecasts; no ledger."""
    with make_run(folder, Sizes(1, shards, slices, budget)) as run:
        config = run.config
    shape = ModelShape(layers=slices, hidden=4096, intermediate=11008, heads=32, kv_heads=32, vocabulary=32000)
    began = time.perf_counter()
    plan_overview(config, records, 180.0, 0.8, shape)
    overview_seconds = time.perf_counter() - began
    digests = {index: f"{index:064d}" for index in range(slices)}
    began = time.perf_counter()
    plans = [plan_shard(shard, orders(config, shard), digests, "recipe") for shard in range(shards)]
    plan_seconds = time.perf_counter() - began
    began = time.perf_counter()
    plans[0] = plan_shard(0, orders(config, 0), {**digests, 0: "another"}, "recipe")
    update_seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    stages = sum(len(each.stages) for each in plans)
    return Planned(records, shards, slices, budget, stages, overview_seconds, plan_seconds, update_seconds, memory)


def main() -> int:
    parser = argparse.ArgumentParser(description="Scale of the scheduler.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the shards")
    parser.add_argument("--folder", default=None, help="folder for temporary ledgers")
    parser.add_argument("--out", type=Path, default=RESULTS / "scheduler_scale.json", help="the JSON to write")
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    console = Console(width=140)

    def work() -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(dir=options.folder)

    result = Result()

    def keep(found: Result) -> Result:
        save(options.out, found)
        return found

    with work() as folder:
        result = keep(replace(result, planned=plan(Path(folder), 1000 // scale, 64, 64, 100_000_000)))
    console.print(result.planned)
    for shards in (10, 1000 // scale):
        with work() as folder:
            result = keep(replace(result, reconcile=(*result.reconcile, reconcile(Path(folder), shards, 20))))
        console.print(result.reconcile[-1])
    console.print(f"a deletion's rounds: {result.growth:.2f} times as long in the larger run")
    for stage_seconds, spread in ((60.0, 0.2), (60.0, 0.0), (10.0, 0.2)):
        with work() as folder:
            found = keep_busy(Path(folder), 1000 // scale, 512 // scale, stage_seconds, spread)
        result = keep(replace(result, busy=(*result.busy, found)))
        console.print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
