"""Measures how fast deletions are acknowledged: latency and rate of durable receipts, against the floors.

In: sizes. Out: `Acknowledgement`. The clock stops when the receipt's transaction is on disk, as for every caller.
Floor measurements alternate with the deletions, in the same folder.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import benchlib
from benchlib.floors import Nothing, bare_database
from benchlib.measure import Latency, latency, seconds, side_by_side
from benchlib.synthetic import Sizes, accept_all, make_run, record_id
from s3t_ray.run import deletion
from s3t_ray.run.run import Run

SMALL_BATCH = 100


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    shards: tuple[int, ...] = (1, 8, 64)
    singles: int = 200
    small_batches: int = 20
    large_batch: int = 100_000
    large_batches: int = 2

    @property
    def records(self) -> int:
        """Records needed for all measurements, half of them untouched by single deletions."""
        used = 2 * self.singles + max(self.shards) + self.small_batches * SMALL_BATCH
        return used + self.large_batches * self.large_batch + 10_000


@dataclass(frozen=True)
class Acknowledgement:
    """Results for one number of shards."""

    shards: int
    records: int
    commit_floor: Latency  # one row, durable
    ray_floor: Latency  # an actor's method that does nothing
    first: Latency  # first deletion in each shard: all its stages become stale
    single: Latency  # in the caller's process
    through_ray: Latency  # from another process, through an actor that holds the run
    small_batch: Latency
    large_batch_records: int
    large_batch_seconds: tuple[float, ...]
    bulk_insert_seconds: tuple[float, ...]  # of as many rows like the ledger's records, without the ledger
    record_insert_seconds: tuple[float, ...]  # the same, into a table with the ledger's indexes

    @property
    def single_over_floor(self) -> float:
        """Median of a single deletion through Ray, divided by the medians of a bare commit plus a bare Ray call."""
        return self.through_ray.median_ms / (self.commit_floor.median_ms + self.ray_floor.median_ms)

    @property
    def batch_of_insert_rate(self) -> float:
        """Records per second of a large batch divided by rows per second of the bare insert; the best of each."""
        return min(self.bulk_insert_seconds) / min(self.large_batch_seconds)

    @property
    def batch_of_record_rate(self) -> float:
        """The same, relative to the insert with indexes."""
        return min(self.record_insert_seconds) / min(self.large_batch_seconds)


class Door:
    """An actor that holds the run and accepts deletions from callers in other processes."""

    def __init__(self, uri: str) -> None:
        self._run = Run.open(uri)
        self._run.keys  # noqa: B018  # read now, not at the first call

    def accept(self, ids: list[str]) -> object:
        return deletion.accept(self._run, ids, [])


def measure(plan: Plan, shards: int, folder: Path, ledger_url: str | None) -> Acknowledgement:
    """Make a run with this many shards and delete from it. Ray must be connected."""
    import ray

    ray.cloudpickle.register_pickle_by_value(benchlib)  # the nodes of a cluster do not have this library
    with tempfile.TemporaryDirectory(dir=folder) as work:
        run = make_run(Path(work), Sizes(plan.records, shards), ledger_url)
        accept_all(run)
        door = ray.remote(Door).options(num_cpus=0).remote(run.location.storage_uri)
        nothing = ray.remote(Nothing).options(num_cpus=0).remote()
        ids = iter(record_id(number) for number in range(plan.records))
        ray.get([nothing.nothing.remote(), door.accept.remote([next(ids)])])
        try:
            with run, bare_database(run.location.ledger_url) as bare:
                return _measure(plan, run, bare, ids, (ray, door, nothing))
        finally:
            ray.kill(door)
            ray.kill(nothing)


def _measure(plan: Plan, run: Run, bare: Any, ids: Any, remote: tuple[Any, Any, Any]) -> Acknowledgement:
    ray, door, nothing = remote
    shards = run.row.shards
    first = latency(seconds(lambda: deletion.accept(run, [next(ids)], [])) for _ in range(shards))
    turns = side_by_side(
        {
            "commit": lambda _: bare.commit(),
            "ray": lambda _: ray.get(nothing.nothing.remote()),
            "single": lambda _: deletion.accept(run, [next(ids)], []),
            "through": lambda _: ray.get(door.accept.remote([next(ids)])),
        },
        plan.singles,
    )
    small = side_by_side(
        {"batch": lambda _: deletion.accept(run, [next(ids) for _ in range(SMALL_BATCH)], [])}, plan.small_batches
    )
    large, inserts, indexed = [], [], []
    for _ in range(plan.large_batches):
        inserts.append(bare.insert_seconds(plan.large_batch))
        indexed.append(bare.record_insert_seconds(plan.large_batch))
        names = [next(ids) for _ in range(plan.large_batch)]
        large.append(seconds(lambda names=names: deletion.accept(run, names, [])))  # type: ignore[misc]
    return Acknowledgement(
        shards=shards,
        records=plan.records,
        commit_floor=turns["commit"],
        ray_floor=turns["ray"],
        first=first,
        single=turns["single"],
        through_ray=turns["through"],
        small_batch=small["batch"],
        large_batch_records=plan.large_batch,
        large_batch_seconds=tuple(large),
        bulk_insert_seconds=tuple(inserts),
        record_insert_seconds=tuple(indexed),
    )
