"""Measures how a deletion reaches its scheduler, and the memory of shard owners. In: sizes. Out: times and bytes."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchlib.in_process import NoReplicas, OwnShards
from benchlib.measure import Latency, latency
from benchlib.published_stages import RandomWorkers
from benchlib.service import after
from benchlib.tiny_run import tiny_run
from s3t_ray.config.schema import Config, Requeue
from s3t_ray.data.partition import Place, place
from s3t_ray.errors import ClusterError
from s3t_ray.ledger.values import DeletionRow, DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard
from s3t_ray.scheduler.scheduler import Scheduler

RECORDS_PER_SLICE = 8  # on average, because placement is random
TOUCHED = 64
REPEATS = 5
LONGEST_SECONDS = 1800.0
"""The measurement fails if a deletion has not healed by then."""


@dataclass(frozen=True)
class BothWays:
    """Times from the receipt's commit until the deletion was pruned."""

    polled: Latency  # found by the scheduler, which polls every TICK_SECONDS
    called: Latency  # notified by `SchedulerActor.wake`, as by the HTTP service


@dataclass(frozen=True)
class Events:
    shards: int
    single: BothWays
    touched: int  # minimum number of shards per deletion in `all_shards`; one record each
    all_shards: BothWays


@dataclass(frozen=True)
class Owners:
    shards: int
    processes: int
    resident_mb: float  # sum over processes; shared pages count once per process
    proportional_mb: float  # sum over processes; a page shared by n of them counts 1/n each
    views_seconds: float
    prune_seconds: float
    touched: int  # shards of the next two figures
    together_seconds: float  # to prune them with parallel calls to their owners
    in_turn_seconds: float  # to prune them with sequential calls


def measure_events(folder: Path, shards: int, singles: int, batches: int) -> Events:
    """Serve a tiny model, and delete from it in both ways alternately; Ray must be connected.

    Nothing is trained: stages have random adapters, and no shard is healed. Each deletion hits the deepest live
    stage of the affected shards, so the live set always changes.
    """
    import ray

    from s3t_ray.ensemble.following_replica import Following
    from s3t_ray.runtime.actors import start_scheduler

    with tempfile.TemporaryDirectory(dir=folder) as work:
        config = _config(Path(work), shards, slices=2 * batches + 2)
        with Run.create(config) as run:
            _fill(run)
            ids = _ids_by_place(run.config)
            scheduler, _ = start_scheduler(run, detached=False)
            replica = ray.remote(Following).options(num_cpus=0, max_concurrency=8).remote(config.storage.uri, 1)
            ray.get(replica.ready.remote())
            ray.get(scheduler.attach_replica.remote("benchmark", replica))
            try:
                touched = [[number % shards] for number in range(2 * singles)]
                touched += [list(range(shards))] * (2 * batches)
                rows = [_delete(run, scheduler, each, ids, turn % 2 == 1) for turn, each in enumerate(touched)]
            finally:
                with suppress(ray.exceptions.RayError):
                    ray.get(scheduler.stop.remote(), timeout=30)
                ray.kill(replica)
                ray.kill(scheduler)
    alone, many = rows[: 2 * singles], rows[2 * singles :]
    return Events(
        shards=shards,
        single=_both(alone),
        touched=min(len({hit.shard for hit in row.receipt.hits}) for row in many),
        all_shards=_both(many),
    )


def measure_owners(folder: Path, shards: int) -> Owners:
    """Memory and times of the owners of a run with this many shards, which have records but no stages yet."""
    from s3t_ray.runtime.shard_owners import ray_owners

    with tempfile.TemporaryDirectory(dir=folder) as work:
        config = _config(Path(work), shards, slices=2)
        with Run.create(config) as run:
            ingest(run, lambda line: None)
            owners = ray_owners(run, run.ledger.take_lease("benchmark"))
            owners.views()  # once, so that all of them are running
            began = time.perf_counter()
            views = owners.views()
            looked = time.perf_counter()
            owners.prune(views)
            pruned = time.perf_counter()
            touched = range(0, shards, max(1, shards // TOUCHED))[:TOUCHED]  # spread over all owners
            together = _median_seconds(lambda: owners.prune(touched))
            in_turn = _median_seconds(lambda: [owners.prune([shard]) for shard in touched])
            memory = [_memory(process) for process in _owner_processes()]
            return Owners(
                shards=shards,
                processes=len(memory),
                resident_mb=sum(each["Rss"] for each in memory) / 1e3,
                proportional_mb=sum(each["Pss"] for each in memory) / 1e3,
                views_seconds=looked - began,
                prune_seconds=pruned - looked,
                touched=len(touched),
                together_seconds=together,
                in_turn_seconds=in_turn,
            )


def _median_seconds(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return median(taken)


def _owner_processes() -> list[Path]:
    """Folders in /proc of the owners' processes on this machine; Ray puts the class name into their titles."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::ShardOwner"):
                found.append(folder)
    return found


def _memory(process: Path) -> dict[str, int]:
    """Rss, Pss and so on in kB (proc(5), smaps_rollup)."""
    lines = (line.split() for line in (process / "smaps_rollup").read_text().splitlines()[1:])
    return {name.rstrip(":"): int(value) for name, value, *_ in lines}


def _both(rows: Sequence[DeletionRow]) -> BothWays:
    return BothWays(
        polled=latency(after(row, row.times.pruned) for row in rows[::2]),
        called=latency(after(row, row.times.pruned) for row in rows[1::2]),
    )


def _fill(run: Run) -> None:
    """Ingest the data, and publish every stage that the run needs."""
    ingest(run, lambda line: None)
    epoch = run.ledger.take_lease("benchmark")
    workers = RandomWorkers(run, run.row.shards)
    scheduler = Scheduler(run, epoch, workers, OwnShards(run, epoch), NoReplicas())
    while not scheduler.idle:
        scheduler.tick(0.0)


def _ids_by_place(config: Config) -> dict[Place, list[str]]:
    found: dict[Place, list[str]] = {}
    for number in range(config.shards * config.slices * RECORDS_PER_SLICE):
        name = f"r{number}"
        found.setdefault(place(name, None, config, None), []).append(name)
    return found


def _delete(run: Run, scheduler: Any, shards: Sequence[int], ids: Mapping[Place, list[str]], call: bool) -> DeletionRow:
    """Delete a record of each shard's deepest live stage, and wait until all is erased."""
    named = []
    for shard in shards:
        view = view_shard(run, shard)
        last = view.plan.stages[view.serving[-1]].slices[-1]
        named.append(ids[Place(shard, last)].pop())
    request = deletion.accept(run, named, []).request_id
    if call:
        scheduler.wake.remote()
    pause = threading.Event()
    longest = time.monotonic() + LONGEST_SECONDS
    while (row := run.ledger.deletion(request)).state.rank < DeletionState.PURGED.rank:
        if time.monotonic() > longest:
            raise ClusterError(f"deletion {request} is still {row.state}", "run the benchmark with fewer shards")
        pause.wait(0.13)  # not a divisor of the scheduler's interval, so that deletions start at any phase of it
    return row


def _config(folder: Path, shards: int, slices: int) -> Config:
    records = RECORDS_PER_SLICE
    config = tiny_run(folder, "events", shards=shards, slices=slices, budget=1, records_per_slice=records, epochs=1)
    return config.model_copy(update={"requeue": Requeue(policy="lazy", floor=0)})  # no shard is ever healed
