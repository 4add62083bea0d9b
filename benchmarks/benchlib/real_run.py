"""Compares the simulation of healing with a small real run under the same deletions: cost and depth served.

In: a folder. Out: `Compared`. The real scheduler trains and heals a tiny model on Ray. The simulation uses the stage
times of the run's first training, and the times of its deletions.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

from benchlib.service import LONGEST_SECONDS, delete_and_wait
from benchlib.simulate import Deletion, Scenario, simulate
from benchlib.tiny_run import tiny_run
from s3t_ray.config.schema import Config
from s3t_ray.errors import ClusterError
from s3t_ray.ledger.values import DeletionRow, Event, EventKind, StageState
from s3t_ray.run.input.ingest import ingest
from s3t_ray.run.run import Run
from s3t_ray.scheduler.scheduler import DEPTHS

SHARDS, SLICES, BUDGET, RECORDS_A_SLICE = 2, 3, 3, 12


@dataclass(frozen=True)
class Course:
    """Cost of healing and depth served, from the first deletion to the last restoration."""

    stages: int
    mean_depth: float  # of a shard's deepest model, over time and shards
    seconds: float  # from a deletion's receipt until its shard was restored, summed


@dataclass(frozen=True)
class Compared:
    policy: str
    deletions: int
    stage_seconds: tuple[float, ...]  # by depth, in the first training
    real: Course
    simulated: Course


def compare(folder: Path, deletions: int) -> Compared:
    """Train, then delete records one at a time, each after the previous has healed. Ray must be connected."""
    import ray

    from s3t_ray.runtime.actors import start_scheduler

    with tempfile.TemporaryDirectory(dir=folder) as work:
        config = _config(Path(work))
        with Run.create(config) as run:
            ingest(run, lambda line: None)
            scheduler, _ = start_scheduler(run, detached=False)
            try:
                _wait_until_trained(run)
                first = run.ledger.events()
                rows = [delete_and_wait(run, [f"r{7 * number}"]) for number in range(deletions)]
            finally:
                with suppress(ray.exceptions.RayError):
                    ray.get(scheduler.stop.remote(), timeout=30)
                ray.kill(scheduler)
            return _compared(run, rows, _stage_seconds(first), run.ledger.events(first[-1].seq))


def _wait_until_trained(run: Run) -> None:
    wanted = sum(len(run.plan(shard).stages) for shard in range(run.row.shards))
    pause = threading.Event()
    until = time.monotonic() + LONGEST_SECONDS
    while len(run.ledger.stages(state=StageState.LIVE)) < wanted:
        if time.monotonic() > until:
            raise ClusterError("the first training did not finish", "see the scheduler's log")
        pause.wait(0.2)


def _compared(
    run: Run, rows: Sequence[DeletionRow], stage_seconds: Mapping[int, float], events: Sequence[Event]
) -> Compared:
    starts = [_at(row.times.accepted) for row in rows]
    ends = [_at(row.times.restored or "") for row in rows]
    begin, end = starts[0], ends[-1]
    depths = _depths(events, run.row.shards)
    simulated = simulate(
        Scenario(
            orders_by_shard=tuple(run.orders(shard) for shard in range(run.row.shards)),
            stage_seconds=tuple(stage_seconds[depth] for depth in range(1, run.row.slices + 1)),
            groups=1,
            policy=run.config.requeue,
            deletions=tuple(
                Deletion(start - begin, hit.shard, hit.slice)
                for start, row in zip(starts, rows, strict=True)
                for hit in row.receipt.hits
            ),
            until_seconds=end - begin,
        )
    )
    real = Course(
        stages=sum(event.kind == EventKind.STAGE_ACCEPTED for event in events),
        mean_depth=_mean(depths, begin, end, run.row.shards, run.row.slices),
        seconds=sum(end - start for start, end in zip(starts, ends, strict=True)),
    )
    return Compared(
        policy=run.config.requeue.policy,
        deletions=len(rows),
        stage_seconds=tuple(stage_seconds[depth] for depth in sorted(stage_seconds)),
        real=real,
        simulated=Course(simulated.stages_trained, simulated.mean_depth, simulated.busy_seconds),
    )


def _stage_seconds(events: Sequence[Event]) -> dict[int, float]:
    """Seconds between accepted stages of one worker group in its first training, by depth."""
    found: dict[int, list[float]] = defaultdict(list)
    accepted = [event for event in events if event.kind == EventKind.STAGE_ACCEPTED]
    for before, event in pairwise(accepted):
        found[len(json.loads(event.detail)["slices"])].append(_at(event.at) - _at(before.at))
    return {depth: median(times) for depth, times in found.items()}


def _depths(events: Sequence[Event], shards: int) -> list[tuple[float, int, int]]:
    """(time, shard, depth of its deepest model) for every change."""
    return [
        (_at(event.at), event.shard, max(json.loads(event.detail)["depths"]))
        for event in events
        if event.kind == DEPTHS and event.shard is not None and event.shard in range(shards)
    ]


def _mean(changes: Sequence[tuple[float, int, int]], begin: float, end: float, shards: int, whole: int) -> float:
    total, depths, now = 0.0, [whole] * shards, begin
    for at, shard, depth in [*changes, (end, 0, 0)]:
        until = min(max(at, begin), end)
        total += sum(depths) * (until - now)
        depths[shard], now = depth, until
    return total / (shards * (end - begin))


def _at(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _config(folder: Path) -> Config:
    return tiny_run(
        folder,
        "real-run",
        shards=SHARDS,
        slices=SLICES,
        budget=BUDGET,
        records_per_slice=RECORDS_A_SLICE,
        epochs=4,
        batch_records=4,
    )
