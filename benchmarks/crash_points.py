"""Kills a run at every durable step of its life, restarts it, and checks every promise: how many points
exist, how many were survived.

In: how many points (all of them unless `--points`), a seed. Out: a table, and JSON with `--json`. Exit
code 1 when a promise broke. The hashing trainer stands for the real one; a step is a write, fsync, rename,
removal or commit of ingest, train, export, delete, purge and publish.

    python -m benchmarks.crash_points                    # every point once: some 20 minutes on one core
    python -m benchmarks.crash_points --points 60 --again  # a sample, with the restart killed too
    python -m benchmarks.crash_points --full storage       # no kills: from the point on this disk is full
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.faults.runtime.crash import ALL_FULL, STORAGE_FULL, Crashes, Point, Verdict, quick_folder
from tests.faults.runtime.sample import RESTART_STEPS

TOLD_EVERY = 100
FULL = {"storage": STORAGE_FULL, "all": ALL_FULL}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=None, help="a sample of this many points; default: all")
    parser.add_argument("--again", action="store_true", help="kill the restart too, at a step drawn by the seed")
    parser.add_argument("--full", choices=FULL, help="no kills: the disk of the storage, or of the ledger too, is full")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of the second kills")
    parser.add_argument("--json", type=Path, default=None, help="file for the figures and for all that broke")
    parser.add_argument("--phase", default=None, help="only the points of this phase")
    options = parser.parse_args(arguments)
    dice = random.Random(options.seed)
    console = Console(stderr=True)
    with quick_folder() as folder:
        began = time.monotonic()
        crashes = Crashes(folder)
        crashes.prepare()
        chosen = [point for point in crashes.points if options.phase in (None, point.phase)]
        if options.points is not None:
            chosen = sorted(dice.sample(chosen, min(options.points, len(chosen))), key=lambda p: (p.phase, p.number))
        verdicts = []
        for point in track(chosen, "killing", console=console, disable=not console.is_terminal):
            again = dice.randrange(RESTART_STEPS) if options.again else None
            if options.full:
                verdicts.append(crashes.judge_full(point, FULL[options.full]))
            else:
                verdicts.append(crashes.judge(point, again))
            if not console.is_terminal and len(verdicts) % TOLD_EVERY == 0:
                console.print(f"{len(verdicts)} of {len(chosen)} points, {time.monotonic() - began:.0f} s")
            for problem in verdicts[-1].problems:
                console.print(f"{_name(verdicts[-1])}: {problem}", style="red", markup=False, highlight=False)
        seconds = time.monotonic() - began
    title = "A full disk from every durable step on" if options.full else "A kill at every durable step"
    Console().print(_table(title, crashes.points, verdicts))
    if options.json is not None:
        options.json.write_text(json.dumps(_figures(crashes.points, verdicts, options.seed, seconds), indent=1) + "\n")
    return 1 if any(verdict.problems for verdict in verdicts) else 0


def _name(verdict: Verdict) -> str:
    point = verdict.point
    twice = "" if verdict.again is None else f", and its restart at {verdict.again}"
    return f"{point.phase} {point.number} ({point.operation} {point.path[-60:]}){twice}"


def _table(title: str, points: Sequence[Point], verdicts: Sequence[Verdict]) -> Table:
    table = Table(title=title)
    for column in ("phase", "steps", "struck at", "survived", "restarts killed too"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for phase, row in _by_phase(points, verdicts).items():
        table.add_row(phase, *(f"{row[name]:,}" for name in ("steps", "struck", "survived", "twice")))
    return table


def _by_phase(points: Sequence[Point], verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    rows: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(("steps", "struck", "survived", "twice"), 0))
    for name in [*dict.fromkeys(point.phase for point in points), "all"]:
        of_phase = [verdict for verdict in verdicts if name in (verdict.point.phase, "all")]
        rows[name] = {
            "steps": sum(name in (point.phase, "all") for point in points),
            "struck": len(of_phase),
            "survived": sum(not verdict.problems for verdict in of_phase),
            "twice": sum(verdict.again is not None for verdict in of_phase),
        }
    return dict(rows)


def _figures(points: Sequence[Point], verdicts: Sequence[Verdict], seed: int, seconds: float) -> dict[str, object]:
    operations: dict[str, int] = defaultdict(int)
    for point in points:
        operations[point.operation] += 1
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "phases": _by_phase(points, verdicts),
        "operations": dict(sorted(operations.items())),
        "broken": [{"point": _name(verdict), "problems": verdict.problems} for verdict in verdicts if verdict.problems],
    }


if __name__ == "__main__":
    raise SystemExit(main())
