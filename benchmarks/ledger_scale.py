"""Measures how the record index scales: fills a ledger with millions of records, then opens, queries and deletes.

    python benchmarks/ledger_scale.py --records 1000000                      # a minute, 1 GB of disk in --folder
    python benchmarks/ledger_scale.py --records 1000000 30000000 --folder D  # half an hour, 14 GB of disk

m = 1,000 shards of L = 64 slices, B = 64. Records are synthetic, assigned by the partition's keyed hash and written by
`Ledger.ingest` to a real SQLite file. The later measurements run in a separate process, so that its memory shows what
the index costs a process that uses it. Writes benchmarks/results/ledger_scale.json after each size.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

from benchlib.measure import Latency, latency, seconds
from benchlib.synthetic import Sizes, begin_run, record_id
from blake3 import blake3
from rich.console import Console

from s3t_ray.data.partition import place
from s3t_ray.ledger.keys import KEY_BYTES
from s3t_ray.ledger.values import RecordEntry
from s3t_ray.plan.stages import ShardPlan
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.sweep.result_file import save

RESULTS = Path(__file__).with_name("results")
PERSON_RECORDS = 5
"""Records per subject, if records have subjects."""


@dataclass(frozen=True)
class Filled:
    """One `Ledger.ingest`, including the generation of its synthetic records."""

    seconds: float
    records_per_second: float
    bytes_per_record: float  # of the ledger's files, once it is closed
    most_disk_gib: float  # in the ledger's folder during ingest; the database's temporary files are elsewhere
    memory_gib: float  # of the process, at its peak
    generator_seconds: float  # share of generating the records, extrapolated from some of them


@dataclass(frozen=True)
class Used:
    """Measurements in a new process."""

    open_ms: float
    look_up: Latency  # one id
    single_deletion: Latency  # of one record, until its receipt
    batch_records: int
    batch_seconds: float  # one deletion of this many records, until its receipt
    batch_per_second: float
    memory_gib: float  # peak of the process up to here
    slices_seconds: float  # the state of every slice, read from the ledger
    plan_stages: int
    plan_seconds: float  # every stage of every shard named
    update_ms: Latency  # after a deletion: the slices of the shard it hit, and that shard's plan
    plan_memory_gib: float


@dataclass(frozen=True)
class Size:
    records: int
    subjects: bool  # whether records have one, which needs a second index
    filled: Filled
    used: Used


@dataclass(frozen=True)
class Result:
    """Written after each size."""

    sizes: tuple[Size, ...] = ()

    @property
    def growth(self) -> dict[str, float]:
        """The largest size relative to the smallest."""
        if len(self.sizes) < 2:
            return {}
        first, last = self.sizes[0], self.sizes[-1]
        return {
            "records": last.records / first.records,
            "bytes_per_record": last.filled.bytes_per_record / first.filled.bytes_per_record,
            "fill_memory": last.filled.memory_gib / first.filled.memory_gib,
            "seconds_per_record": first.filled.records_per_second / last.filled.records_per_second,
            "open": last.used.open_ms / first.used.open_ms,
            "look_up": last.used.look_up.median_ms / first.used.look_up.median_ms,
            "single_deletion": last.used.single_deletion.median_ms / first.used.single_deletion.median_ms,
            "batch": last.used.batch_seconds / first.used.batch_seconds,
            "memory": last.used.memory_gib / first.used.memory_gib,
            "plan": last.used.plan_seconds / first.used.plan_seconds,
            "update": last.used.update_ms.median_ms / first.used.update_ms.median_ms,
        }


def fill(folder: Path, sizes: Sizes, subjects: bool) -> Filled:
    """One ingest of `sizes.records` synthetic records."""
    with begin_run(folder, sizes) as run, _most_disk(folder) as most:
        sample = min(sizes.records, 100_000)
        making = seconds(lambda: sum(1 for _ in _entries(run, sample, subjects))) / sample
        took = seconds(lambda: run.ledger.ingest(run.describe(), _entries(run, sizes.records, subjects)))
    return Filled(
        seconds=took,
        records_per_second=sizes.records / took,
        bytes_per_record=_disk(folder) / sizes.records,
        most_disk_gib=max(most) / 2**30,
        memory_gib=_memory_gib(),
        generator_seconds=making * sizes.records,
    )


def use(folder: Path, records: int, batch: int, rounds: int = 100) -> Used:
    """What a process does with an existing ledger."""
    random = Random(records)
    numbers = random.sample(range(records), 3 * rounds + batch)
    began = time.perf_counter()
    with Run.open(folder / "run") as run:
        assert run.ledger.run() is not None
        opened = time.perf_counter() - began
        names = run.keys.id_hmacs([record_id(number) for number in numbers])
        look_ups = [seconds(partial(run.ledger.record_states, [name])) for name in names[:rounds]]
        singles = [
            seconds(partial(deletion.accept, run, [record_id(number)], [])) for number in numbers[rounds : 2 * rounds]
        ]
        many = [record_id(number) for number in numbers[3 * rounds :]]
        batch_seconds = seconds(lambda: deletion.accept(run, many, []))
        memory = _memory_gib()
        slices_seconds = seconds(run.ledger.slices)
        began = time.perf_counter()
        plans = {shard: run.plan(shard) for shard in range(run.row.shards)}
        plan_seconds = time.perf_counter() - began
        updates = []
        for number in numbers[2 * rounds : 3 * rounds]:
            deletion.accept(run, [record_id(number)], [])
            shard = place(record_id(number), None, run.config, None).shard
            before = plans.pop(shard)
            updates.append(seconds(partial(renew, plans, run, shard)))
            if plans[shard].stages.keys() == before.stages.keys():
                raise RuntimeError(f"deleting {record_id(number)} changed nothing in shard {shard}")
    return Used(
        open_ms=1000 * opened,
        look_up=latency(look_ups),
        single_deletion=latency(singles),
        batch_records=batch,
        batch_seconds=batch_seconds,
        batch_per_second=batch / batch_seconds,
        memory_gib=memory,
        slices_seconds=slices_seconds,
        plan_stages=sum(len(plan.stages) for plan in plans.values()),
        plan_seconds=plan_seconds,
        update_ms=latency(updates),
        plan_memory_gib=_memory_gib(),
    )


def _entries(run: Run, records: int, subjects: bool) -> Iterator[RecordEntry]:
    """Real ids and slices; contents, which nothing reads, are generated as fast as possible."""
    keys, config = run.keys, run.config
    person = None
    for number in range(records):
        name = record_id(number)
        spot = place(name, None, config, None)
        content = blake3(number.to_bytes(8, "big")).digest(2 * KEY_BYTES)
        if subjects and number % PERSON_RECORDS == 0:
            person = keys.subject_hmac(f"person-{number // PERSON_RECORDS}")
        yield RecordEntry(keys.id_hmac(name), person, content[:KEY_BYTES], content[KEY_BYTES:], spot.shard, spot.slice)


@contextmanager
def _most_disk(folder: Path) -> Iterator[list[int]]:
    """Peak size of the folder, sampled every second."""
    seen, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(1):
            seen.append(_disk(folder))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
        seen.append(_disk(folder))


def _disk(folder: Path) -> int:
    """Bytes that the files take on disk, without unlinked ones."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(at, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def renew(plans: dict[int, ShardPlan], run: Run, shard: int) -> None:
    plans[shard] = run.plan(shard)


def _memory_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(folder: Path, sizes: Sizes, subjects: bool) -> Size:
    """Runs each part in its own process."""
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as apart:
        filled = apart.submit(fill, folder, sizes, subjects).result()
        used = apart.submit(use, folder, sizes.records, min(100_000, sizes.records // 10)).result()
    return Size(sizes.records, subjects, filled, used)


def main() -> int:
    parser = argparse.ArgumentParser(description="Scale of the ledger's record index.")
    parser.add_argument("--records", type=int, nargs="+", default=[1_000_000], help="sizes, one after another")
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--budget", type=int, default=64)
    parser.add_argument("--no-subjects", action="store_true", help="records without subjects: one index fewer")
    parser.add_argument("--folder", type=Path, default=None, help="folder for temporary ledgers")
    parser.add_argument("--out", type=Path, default=RESULTS / "ledger_scale.json", help="the JSON to write")
    options = parser.parse_args()
    console = Console(width=140)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    result = Result()
    for records in options.records:
        work = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            sizes = Sizes(records, options.shards, options.slices, options.budget)
            found = measure(work, sizes, not options.no_subjects)
        finally:
            shutil.rmtree(work)
        result = replace(result, sizes=(*result.sizes, found))
        save(options.out, result)
        console.print(found)
    console.print(result.growth)
    return 0


if __name__ == "__main__":
    sys.exit(main())
