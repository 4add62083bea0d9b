"""Kills random processes of a live run during a stream of deletions, and checks that no deletion is lost.

In: the number of runs, of kills and deletions per run, and a seed. Out: a table, and JSON with `--json`. Each run is
added to it when it ends, so the work can be split over several calls. The exit code is 1 if a promise was broken. A
tiny random Llama really trains. Kills hit the scheduler, the owners of shards, ranks, entire nodes of a three-node
cluster, the driver and the deleting process; one in four follows another immediately. After each run, every
acknowledged deletion must be restored, `audit` must be clean with the certificates that were issued, and the adapters
must be bitwise equal to those of a training without the deleted records.

    python -m benchmarks.chaos --runs 1 --kills 10 --deletions 50 --json chaos.json
    python -m benchmarks.chaos --runs 4 --kills 52 --deletions 520 --json chaos.json   # about half an hour on two cores
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}
# Every fourth run starts its own Ray, which dies with the driver; every third has two ranks per group.
LOCAL_EVERY, TWO_RANKS_EVERY = 4, 3

WIDTH = 150


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--kills", type=int, default=10, help="kills per run")
    parser.add_argument("--deletions", type=int, default=50, help="deletion requests per run")
    parser.add_argument("--pause", type=float, default=4.0, help="longest pause between two kills, in seconds")
    parser.add_argument("--kill-seconds", type=float, default=3600.0, help="stop killing this long after a run starts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first run; each further run adds 1")
    parser.add_argument("--json", type=Path, default=None, help="append each run's results to this file")
    options = parser.parse_args(arguments)
    os.environ.update({**ENVIRONMENT, "RAY_AUTH_TOKEN": secrets.token_hex(32)})  # before Ray is imported
    from tests.faults.runtime.chaos import Chaos
    from tests.faults.runtime.chaos_plan import ACTORS, Plan

    console = Console(stderr=True)
    known = json.loads(options.json.read_text()) if options.json is not None and options.json.exists() else []
    broken = False
    for number in range(options.seed, options.seed + options.runs):
        local = number % LOCAL_EVERY == LOCAL_EVERY - 1
        plan = Plan(
            seed=number,
            kills=options.kills,
            deletions=options.deletions,
            pause_seconds=(0.1, options.pause),
            kill_seconds=options.kill_seconds,
            nodes=0 if local else 3,
            ranks=2 if number % TWO_RANKS_EVERY == TWO_RANKS_EVERY - 1 else 1,
            groups=1 if local else 2,
            kinds=(*ACTORS, "driver", "deleter") if local else Plan.kinds,
        )
        with tempfile.TemporaryDirectory(prefix="s3t-chaos-") as folder:
            report = Chaos(Path(folder), plan, lambda line: console.print(line, highlight=False)).live()
        for problem in (*report.problems, *report.driver_errors):
            console.print(problem, style="red", markup=False, highlight=False)
        broken = broken or bool(report.problems) or report.lost > 0
        known.append(asdict(report))
        if options.json is not None:
            options.json.write_text(json.dumps(known, indent=1) + "\n")
    Console(width=WIDTH).print(_table(known))
    return 1 if broken else 0


def _table(reports: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Kills of a live run during a stream of deletions")
    kinds = sorted({kind for report in reports for kind in report["kills"]})
    for column in ("run", *kinds, "kills", "deletions", "restored", "lost", "problems", "schedulers", "seconds"):
        table.add_column(column, justify="right")
    for report in reports:
        table.add_row(_name(report["plan"]), *(f"{figure:,}" for figure in _figures(report, kinds)))
    if reports:
        columns = zip(*(_figures(report, kinds) for report in reports), strict=True)
        table.add_section()
        table.add_row("all", *(f"{sum(column):,}" for column in columns))
    return table


def _figures(report: Mapping[str, Any], kinds: Sequence[str]) -> list[int]:
    kills: Counter[str] = Counter(report["kills"])
    return [
        *(kills[kind] for kind in kinds),
        kills.total(),
        report["acknowledged"],
        report["restored"],
        report["lost"],
        len(report["problems"]),
        report["epochs"],
        round(report["seconds"]),
    ]


def _name(plan: Mapping[str, Any]) -> str:
    where = f"{plan['nodes']} nodes" if plan["nodes"] else "own Ray"
    return f"{plan['seed']}: {where}, {plan['ranks']} rank" + ("s" if plan["ranks"] > 1 else "")


if __name__ == "__main__":
    raise SystemExit(main())
