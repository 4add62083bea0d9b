"""Measures what a certificate costs the ledger, and whether that grows with the number of certificates.

    python benchmarks/certificate_rate.py --deletions 2000

A synthetic run of 8 shards x 6 slices with all its stages. Every deletion is accepted and purged, then gets its interim
and its final certificate, made as the scheduler makes them. Counts statements, CPU time, which other processes on the
machine hardly affect, and wall time, which they do affect. Writes benchmarks/results/certificate_rate.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchlib.synthetic import Sizes, accept_all, adapter_of, make_run, record_id
from rich.console import Console
from sqlalchemy import event

from s3t_ray.ledger.values import DeletionState, StageState
from s3t_ray.run import deletion
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard
from s3t_ray.scheduler.certify import certify, unannounced
from s3t_ray.sweep.result_file import save

SHARDS = 8
RESULT = Path(__file__).with_name("results") / "certificate_rate.json"


def purged(run: Run, epoch: int, deletions: int) -> list[str]:
    """Accept and purge this many deletions of one record each, and retrain everything. Returns the request ids."""
    requests = [deletion.accept(run, [record_id(4 * number)], []).request_id for number in range(deletions)]
    for request in requests:
        run.ledger.advance(epoch, request, DeletionState.PRUNED)
    for state in run.ledger.slices():
        path = f"slices/{state.shard}/{state.slice}/{state.digest}.parquet"
        run.ledger.set_slice_file(epoch, state.shard, state.slice, path, "c" * 64, state.digest)
    run.ledger.mark_purged(epoch, [row.id for row in run.ledger.stages(state=StageState.STALE)])
    for request in requests:
        run.ledger.advance(epoch, request, DeletionState.PURGED)
    for shard in range(SHARDS):
        view = view_shard(run, shard)
        digests = {state.slice: state.digest for state in view.slices}
        for stage in sorted((view.plan.stages[name] for name in view.missing), key=lambda each: each.depth):
            run.ledger.accept_stage(epoch, stage, adapter_of(stage.id), digests)
    return requests


def measure(run: Run, epoch: int, requests: list[str], final: bool) -> dict[str, float]:
    """Mean CPU milliseconds and statements per certificate: over all, and over the first and the last quarter."""
    statements: list[str] = []
    event.listen(run.ledger._database._engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    times, walls = [], []
    for request in requests:
        begun, wall = time.process_time(), time.perf_counter()
        if not final:
            unannounced(run, request)
        certify(run, epoch, request, final=final)
        times.append((time.process_time() - begun) * 1e3)
        walls.append((time.perf_counter() - wall) * 1e3)
    quarter = len(times) // 4
    return {
        "milliseconds": sum(times) / len(times),
        "first_quarter": sum(times[:quarter]) / quarter,
        "last_quarter": sum(times[-quarter:]) / quarter,
        "wall_milliseconds": sum(walls) / len(walls),
        "wall_median": statistics.median(walls),
        "statements": len(statements) / len(times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deletions", type=int, default=2000)
    count = parser.parse_args().deletions
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), Sizes(4 * count + 100, SHARDS))
        accept_all(run)
        epoch = run.ledger.take_lease("benchmark")
        requests = purged(run, epoch, count)
        found = {name: measure(run, epoch, requests, name == "final") for name in ("interim", "final")}
        run.close()
    save(RESULT, {"deletions": count, **found})
    for name, told in found.items():
        Console().print(name, ", ".join(f"{field} {value:.2f}" for field, value in told.items()))


if __name__ == "__main__":
    main()
