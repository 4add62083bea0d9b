"""The deletion benchmark: receipts per second, and the effect of a deletion on a served run.

In: arguments. Out: tables on the console and one JSON. `benchmarks/deletion_throughput.py` and
`jobs/deletion_benchmark.py` both run this.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchlib import acknowledge, service
from benchlib.acknowledge import Acknowledgement
from benchlib.measure import Latency
from benchlib.service import InService
from s3t_ray.config.location import in_job_copy
from s3t_ray.errors import ConfigError
from s3t_ray.runtime.connect import connected
from s3t_ray.sweep.result_file import save

RESULT = "deletion_throughput.json"


@dataclass(frozen=True)
class Result:
    acknowledged: tuple[Acknowledgement, ...]
    in_service: InService | None


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark. Returns the exit code."""
    options = _options(arguments)
    out = _place_for(options.out, options.folder)
    console = Console(width=150)
    plan = acknowledge.Plan(
        shards=tuple(options.shards), singles=options.singles, large_batch=options.batch, large_batches=options.batches
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, connected(options.address):
        acknowledged = []
        for shards in plan.shards:
            console.print(f"{shards} shards, {plan.records:,} records ...", highlight=False)
            acknowledged.append(acknowledge.measure(plan, shards, Path(folder), options.ledger))
        in_service = None
        if options.live_shards:
            console.print(f"training and serving {options.live_shards} shards of a tiny model ...")
            in_service = service.measure(Path(folder), options.live_shards, options.live_deletions)
    console.print(_receipts(acknowledged))
    if in_service is not None:
        console.print(_in_service(in_service))
    console.print(f"written to {save(out, Result(tuple(acknowledged), in_service))}", highlight=False)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Durable deletions per second, and their effect on a served run.")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 8, 64], help="shards of each ledger")
    parser.add_argument("--singles", type=int, default=200, help="single deletions to time")
    parser.add_argument("--batch", type=int, default=100_000, help="records per large batch")
    parser.add_argument("--batches", type=int, default=2, help="large batches to time")
    parser.add_argument("--live-shards", type=int, default=4, help="shards of the served run; 0: skip it")
    parser.add_argument("--live-deletions", type=int, default=6, help="single deletions from the served run")
    parser.add_argument(
        "--ledger", default=None, help="URL of an empty PostgreSQL database, with a single --shards; default: SQLite"
    )
    parser.add_argument("--folder", type=Path, default=None, help="folder for temporary runs")
    parser.add_argument("--address", default=None, help="Ray cluster; default: a local one, or the job's own")
    parser.add_argument("--out", type=Path, default=None, help=f"the JSON to write; default: {RESULT} in --folder")
    return parser.parse_args(arguments)


def _place_for(out: Path | None, folder: Path | None) -> Path:
    """Absolute path of the JSON, checked before anything is measured.

    ConfigError: the folder is missing, or the JSON would be deleted with the job's copy of its working folder.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigError(
            f"--folder {folder} is not a folder on this machine", "create it, on a disk that all nodes share"
        )
    place = Path(os.path.abspath(out or (folder or Path.cwd()) / RESULT))
    if not place.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {place.parent}", "create it, or choose another")
    here = Path.cwd()
    if in_job_copy(here) and place.is_relative_to(here):
        raise ConfigError(
            f"{place} is in this job's copy of its working folder, which is deleted after the job",
            "give an absolute path with --out, or a folder with --folder, on a disk that all nodes share",
        )
    return place


def _receipts(rows: Sequence[Acknowledgement]) -> Table:
    table = Table(title="Durable receipts: median / p99 in ms", title_justify="left")
    for column in ("shards", *(str(row.shards) for row in rows)):
        table.add_column(column, justify="left" if column == "shards" else "right")

    def line(name: str, value: object) -> None:
        table.add_row(name, *(value(row) for row in rows))  # type: ignore[operator]

    line("floor: bare commit of one row", lambda row: _ms(row.commit_floor))
    line("floor: bare Ray call", lambda row: _ms(row.ray_floor))
    line("first deletion of a shard, all its stages live", lambda row: _ms(row.first))
    line("single, in process", lambda row: _ms(row.single))
    line("single, through an actor", lambda row: _ms(row.through_ray))
    line("  per second, one caller", lambda row: f"{row.through_ray.per_second:,.0f}")
    line("  relative to the sum of the floors", lambda row: f"{row.single_over_floor:.2f}")
    line("batch of 100", lambda row: _ms(row.small_batch))
    line(
        "large batch: records per second", lambda row: f"{row.large_batch_records / min(row.large_batch_seconds):,.0f}"
    )
    line("bare insert: rows per second", lambda row: f"{row.large_batch_records / min(row.bulk_insert_seconds):,.0f}")
    line("  share of the bare insert rate", lambda row: f"{row.batch_of_insert_rate:.2f}")
    line(
        "insert into the record table: rows per second",
        lambda row: f"{row.large_batch_records / min(row.record_insert_seconds):,.0f}",
    )
    line("  share of that rate", lambda row: f"{row.batch_of_record_rate:.2f}")
    return table


def _in_service(found: InService) -> Table:
    table = Table(title=f"Served run: {found.shards} shards of a tiny model", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    for name, value in (
        (f"receipt to pruned, {found.deletions} single deletions (median / longest, ms)", _ms(found.to_pruned)),
        ("receipt to purged", _ms(found.to_purged)),
        ("receipt to restored (retrained)", _ms(found.to_restored)),
        (f"batch of {found.batch_records}: to pruned, s", f"{found.batch_to_pruned_seconds:.2f}"),
        ("  to purged, s", f"{found.batch_to_purged_seconds:.2f}"),
        ("answers before (median / p99, ms)", _ms(found.answers_before)),
        ("answers during", _ms(found.answers_during)),
        ("requests, failed", f"{found.asked:,}, {found.failed}"),
        ("availability", f"{found.availability:.2%}"),
        ("longest gap between answers, s", f"{found.longest_gap_seconds:.2f}"),
    ):
        table.add_row(name, value)
    return table


def _ms(latency: Latency) -> str:
    return f"{latency.median_ms:.2f} / {latency.p99_ms:.2f}"
