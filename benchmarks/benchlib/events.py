"""How a deletion reaches its scheduler, and what the owners of the shards weigh. In: sizes. Out: times and bytes."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchlib.measure import Latency, latency
from benchlib.service import LONGEST_SECONDS, after
from benchlib.tiny_run import tiny_run
from s3t_ray.config.schema import Config
from s3t_ray.errors import ClusterError
from s3t_ray.ledger.values import DeletionRow, DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run

SLICES = 2
RECORDS_PER_SLICE = 8
RECORDS_PER_BATCH = 3  # times the shards: nearly all of them are touched


@dataclass(frozen=True)
class BothWays:
    """Times from the receipt's commit until the deletion was pruned."""

    polled: Latency  # nobody told the scheduler: it looks every TICK_SECONDS
    called: Latency  # told by `SchedulerActor.wake`, as the HTTP service does


@dataclass(frozen=True)
class Events:
    shards: int
    single: BothWays
    touched: int  # shards of each deletion in `all_shards`, at the least
    all_shards: BothWays


@dataclass(frozen=True)
class Owners:
    shards: int
    processes: int
    resident_mb: float  # of all of them; pages that they share are counted for each
    proportional_mb: float  # a page shared by n processes counts 1/n for each
    views_seconds: float
    prune_seconds: float


def measure_events(folder: Path, shards: int, singles: int, batches: int) -> Events:
    """Train a tiny model, serve it, delete from it both ways by turns; Ray must be connected."""
    import ray

    from s3t_ray.ensemble.following_replica import Following
    from s3t_ray.runtime.actors import start_scheduler
    from s3t_ray.runtime.train import train

    with tempfile.TemporaryDirectory(dir=folder) as work:
        config = _config(Path(work), shards)
        train(config)
        with Run.open(config.storage.uri) as run:
            scheduler, _ = start_scheduler(run, detached=False)
            replica = ray.remote(Following).options(num_cpus=0, max_concurrency=8).remote(config.storage.uri, 1)
            ray.get(replica.ready.remote())
            ray.get(scheduler.attach_replica.remote("benchmark", replica))
            try:
                ids = iter(range(shards * SLICES * RECORDS_PER_SLICE))
                alone = [_delete(run, scheduler, [next(ids)], number % 2 == 1) for number in range(2 * singles)]
                many = [
                    _delete(run, scheduler, [next(ids) for _ in range(RECORDS_PER_BATCH * shards)], number % 2 == 1)
                    for number in range(2 * batches)
                ]
            finally:
                with suppress(ray.exceptions.RayError):
                    ray.get(scheduler.stop.remote(), timeout=30)
                ray.kill(replica)
                ray.kill(scheduler)
    return Events(
        shards=shards,
        single=_both(alone),
        touched=min(len({hit.shard for hit in row.receipt.hits}) for row in many),
        all_shards=_both(many),
    )


def measure_owners(folder: Path, shards: int) -> Owners:
    """Memory of the owners of a run of so many shards (records, no stage yet), and how long all of them take."""
    from s3t_ray.runtime.shard_owners import ray_owners

    with tempfile.TemporaryDirectory(dir=folder) as work:
        config = _config(Path(work), shards)
        with Run.create(config) as run:
            ingest(run, lambda line: None)
            owners = ray_owners(run, run.ledger.take_lease("benchmark"))
            owners.views()  # once, so that they are all up
            began = time.perf_counter()
            views = owners.views()
            looked = time.perf_counter()
            owners.prune(views)
            pruned = time.perf_counter()
            memory = [_memory(process) for process in _owner_processes()]
            return Owners(
                shards=shards,
                processes=len(memory),
                resident_mb=sum(each["Rss"] for each in memory) / 1e3,
                proportional_mb=sum(each["Pss"] for each in memory) / 1e3,
                views_seconds=looked - began,
                prune_seconds=pruned - looked,
            )


def _owner_processes() -> list[Path]:
    """Folders in /proc of the owners' processes on this machine, which Ray titles after their class."""
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


def _delete(run: Run, scheduler: Any, numbers: Sequence[int], call: bool) -> DeletionRow:
    """Delete these records, and wait until their shards are healed."""
    request = deletion.commit(run, [f"r{number}" for number in numbers], []).request_id
    if call:
        scheduler.wake.remote()
    pause = threading.Event()
    until = time.monotonic() + LONGEST_SECONDS
    while (row := run.ledger.deletion(request)).state is not DeletionState.RESTORED:
        if time.monotonic() > until:
            raise ClusterError(f"deletion {request} is still {row.state}", "give the benchmark fewer shards")
        pause.wait(0.13)  # not a divisor of the scheduler's own pause: the next one comes at any moment of it
    return row


def _config(folder: Path, shards: int) -> Config:
    records = RECORDS_PER_SLICE
    return tiny_run(folder, "events", shards=shards, slices=SLICES, budget=1, records_per_slice=records, epochs=1)
