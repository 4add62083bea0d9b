"""Measures the effect of a deletion on a served run: time to pruned, purged and restored, and availability.

The real scheduler and worker groups train a tiny model on Ray. A real replica serves it and gets continuous requests
while records are deleted. In: sizes. Out: `InService`. Times are those recorded in the ledger.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchlib.measure import Latency, latency
from benchlib.tiny_run import tiny_run
from s3t_ray.config.schema import Config
from s3t_ray.errors import ClusterError, VerificationFailed
from s3t_ray.ledger.values import DeletionRow, DeletionState
from s3t_ray.run import deletion
from s3t_ray.run.run import Run

SLICES = 3
BUDGET = 2
RECORDS_A_SLICE = 20
LONGEST_SECONDS = 300.0
"""The measurement fails if a deletion is not restored by then."""


@dataclass(frozen=True)
class InService:
    """Results; all times start at the receipt's commit."""

    shards: int
    deletions: int
    to_pruned: Latency
    to_purged: Latency
    to_restored: Latency  # retrained: means little for a tiny model
    batch_records: int
    batch_to_pruned_seconds: float
    batch_to_purged_seconds: float
    answers_before: Latency  # without deletions
    answers_during: Latency  # from the first receipt until the last deletion was restored
    asked: int
    failed: int  # requests without an answer
    longest_gap_seconds: float  # between consecutive answers to one caller
    shallowest: int  # minimum over answers of the summed depths of all shards

    @property
    def availability(self) -> float:
        """Share of requests that were answered."""
        return 1 - self.failed / self.asked


@dataclass(frozen=True)
class _Asked:
    sent: float  # wall clock, seconds
    got: float
    stages: frozenset[str] | None  # behind the answer; None: no answer
    depth: int


def measure(folder: Path, shards: int, deletions: int) -> InService:
    """Train, serve, delete; Ray must be connected."""
    import ray

    from s3t_ray.ensemble.following_replica import Following
    from s3t_ray.runtime.actors import start_scheduler
    from s3t_ray.runtime.train import train

    with tempfile.TemporaryDirectory(dir=folder) as work:
        config = _config(Path(work), shards)
        train(config)
        with Run.open(config.storage.uri) as run:
            scheduler, _ = start_scheduler(run, detached=False)
            environment = {"env_vars": {"OMP_NUM_THREADS": "1"}}
            replica = (
                ray.remote(Following)
                .options(num_cpus=0, max_concurrency=8, runtime_env=environment)
                .remote(run.location.storage_uri, 1)
            )
            ray.get(replica.ready.remote())
            ray.get(scheduler.attach_replica.remote("benchmark", replica))
            try:
                return _delete_while_asking(run, _Asker(replica), shards, deletions)
            finally:
                with suppress(ray.exceptions.RayError):
                    ray.get(scheduler.stop.remote(), timeout=30)
                ray.kill(replica)
                ray.kill(scheduler)


def _delete_while_asking(run: Run, asker: _Asker, shards: int, deletions: int) -> InService:
    asker.start()
    asker.wait_for(20)
    began = time.time()
    before = list(asker.asked)
    ids = _one_a_slice(shards)
    done = [delete_and_wait(run, [name]) for name in ids[:deletions]]
    batch = delete_and_wait(run, [f"r{number}" for number in range(100, 100 + 10 * shards)])
    during = [each for each in asker.stop()[len(before) :] if each.sent >= began]
    _check_answers(run, during)
    answered = [each for each in during if each.stages is not None]
    ends = [before[-1].got, *(each.got for each in answered)]
    return InService(
        shards=shards,
        deletions=len(done),
        to_pruned=latency(after(row, row.times.pruned) for row in done),
        to_purged=latency(after(row, row.times.purged) for row in done),
        to_restored=latency(after(row, row.times.restored) for row in done),
        batch_records=batch.receipt.records,
        batch_to_pruned_seconds=after(batch, batch.times.pruned),
        batch_to_purged_seconds=after(batch, batch.times.purged),
        answers_before=latency(each.got - each.sent for each in before),
        answers_during=latency(each.got - each.sent for each in answered),
        asked=len(during),
        failed=len(during) - len(answered),
        longest_gap_seconds=max(later - earlier for earlier, later in pairwise(ends)),
        shallowest=min(each.depth for each in answered),
    )


class _Asker:
    """Asks a replica for short answers continuously, in its own thread."""

    def __init__(self, replica: Any) -> None:
        self.asked: list[_Asked] = []
        self._replica = replica
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait_for(self, answers: int) -> None:
        pause = threading.Event()
        until = time.monotonic() + LONGEST_SECONDS
        while len(self.asked) < answers:
            if time.monotonic() > until:
                raise ClusterError("the replica does not answer", "see its log")
            pause.wait(0.05)

    def stop(self) -> list[_Asked]:
        self._end.set()
        self._thread.join()
        return self.asked

    def _ask(self) -> None:
        import ray

        from s3t_ray.ensemble.answers import Wish
        from s3t_ray.ensemble.batching.sampling_params import SamplingParams

        wish = Wish("Say which record this is.", SamplingParams(4))
        while not self._end.is_set():
            sent = time.time()
            try:
                answer = ray.get(self._replica.complete.remote(wish), timeout=30)
                self.asked.append(_Asked(sent, time.time(), frozenset(answer.stages), sum(answer.depths)))
            except ray.exceptions.RayError:
                self.asked.append(_Asked(sent, time.time(), None, 0))


def delete_and_wait(run: Run, ids: Sequence[str]) -> DeletionRow:
    """Delete the records, and wait until the deletion is restored."""
    request = deletion.accept(run, ids, []).request_id
    pause = threading.Event()
    until = time.monotonic() + LONGEST_SECONDS
    while True:
        row = run.ledger.deletion(request)
        if row.state is DeletionState.RESTORED:
            return row
        if time.monotonic() > until:
            raise ClusterError(
                f"deletion {request} is still {row.state}", "run the benchmark with fewer shards or more CPUs"
            )
        pause.wait(0.05)


def _check_answers(run: Run, asked: Sequence[_Asked]) -> None:
    """Check that no request sent after a deletion was pruned was answered by one of its stale stages."""
    for row in run.ledger.deletions():
        struck = frozenset(row.receipt.stages)
        pruned = datetime.fromisoformat(row.times.pruned or "").timestamp()
        for each in asked:
            if each.stages is not None and each.sent > pruned and each.stages & struck:
                raise VerificationFailed(
                    f"stage {sorted(each.stages & struck)[0]} answered a request that was sent after it was pruned",
                    "report this: it breaks the guarantee of a deletion",
                )


def after(row: DeletionRow, moment: str | None) -> float:
    """Seconds from the receipt to this time."""
    end = datetime.fromisoformat(moment or "")
    return (end - datetime.fromisoformat(row.times.accepted)).total_seconds()


def _one_a_slice(shards: int) -> list[str]:
    """Ids of records in different slices, as far as the hash of ids allows."""
    return [f"r{number}" for number in range(shards * SLICES)]


def _config(folder: Path, shards: int) -> Config:
    records = RECORDS_A_SLICE
    return tiny_run(
        folder, "in-service", shards=shards, slices=SLICES, budget=BUDGET, records_per_slice=records, epochs=1
    )
