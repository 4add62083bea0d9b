"""Interrupts a run at every durable step of its life, restarts it, and checks every promise.

In: the number of points (all, unless `--points`) and a seed. Out: a table with the points that exist and those
survived, and JSON with `--json`, written as the sweep proceeds: repeating the command continues it. The exit code is 1
if a promise was broken. The hashing trainer replaces the real one. A step is a write, fsync, rename, removal or commit
of ingest, train, export, delete, purge or publish. When sweeping all points, the process pauses at each, and a copy of
its folder, which equals what a kill would leave, is restarted. For a sample, the process is killed at each (SIGKILL).

    python -m benchmarks.crash_points --json crash_points.json   # every point once: about 15 minutes on one free core
    python -m benchmarks.crash_points --points 60 --again  # a sample; the restart is killed too
    python -m benchmarks.crash_points --disk eio-once      # no kills: the step itself fails; see --help for more

To share a sweep between two processes, use --part 1/2 and --part 2/2, each with its own file.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.faults.runtime.crash import Crashes, Point, Verdict, quick_folder
from tests.faults.runtime.failing_disk import ALL_FULL, ERROR_LASTING, ERROR_ONCE, STORAGE_FULL, judge_failing
from tests.faults.runtime.sample import RESTART_STEPS

WRITTEN_EVERY = 5
FAILURES = {"full": STORAGE_FULL, "all-full": ALL_FULL, "eio-once": ERROR_ONCE, "eio": ERROR_LASTING}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=None, help="sample this many points; default: all")
    parser.add_argument("--again", action="store_true", help="also kill the restart, at a random step")
    parser.add_argument("--disk", choices=FAILURES, help="instead of a kill, make the disk fail like this")
    parser.add_argument("--power", action="store_true", help="cut the power: unsynced data may be lost")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample and of the second kills")
    parser.add_argument("--json", type=Path, default=None, help="file for the results and all broken promises")
    parser.add_argument(
        "--part", type=_part, default=(1, 1), help="1/2: the first of two halves, each with its own --json"
    )
    parser.add_argument("--phase", default=None, help="only points of this phase")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    with quick_folder() as folder:
        crashes = Crashes(folder)
        crashes.prepare()
        record = Record(options.json, crashes.points)
        part, parts = options.part
        chosen = [
            point
            for point in crashes.points
            if options.phase in (None, point.phase) and point.number % parts == part - 1
        ]
        for verdict in track(_verdicts(crashes, chosen, record, options), "striking", console=console):
            record.add(verdict)
            for problem in verdict.problems:
                console.print(f"{_name(verdict)}: {problem}", style="red", markup=False, highlight=False)
    record.write()
    title = f"The disk at every durable step: {options.disk}" if options.disk else "Interruption at every durable step"
    Console().print(_table(title, record))
    return 1 if record.broken else 0


def _verdicts(
    crashes: Crashes, chosen: Sequence[Point], record: Record, options: argparse.Namespace
) -> Iterator[Verdict]:
    if options.points is None and not options.again and not options.disk:
        for phase in dict.fromkeys(point.phase for point in chosen):
            numbers = {point.number for point in chosen if point.phase == phase} - record.struck(phase)
            if numbers:
                yield from crashes.judge_held(phase, numbers, random.Random(options.seed) if options.power else None)
        return
    dice = random.Random(options.seed)
    count = len(chosen) if options.points is None else min(options.points, len(chosen))
    for point in dice.sample(chosen, count):  # in random order, so that an interrupted sweep is a fair sample
        if point.number in record.struck(point.phase):
            continue
        if options.disk:
            yield judge_failing(crashes, point, FAILURES[options.disk])
        else:
            yield crashes.judge(point, dice.randrange(RESTART_STEPS) if options.again else None)


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"expected a part such as 1/2, got {text}")
    return int(part), int(parts)


class Record:
    """The points tried so far, in memory and in the file."""

    def __init__(self, path: Path | None, points: Sequence[Point]) -> None:
        self._path = path
        self._steps = Counter(point.phase for point in points)
        self._operations = Counter(point.operation for point in points)
        self._struck: dict[str, list[int]] = {phase: [] for phase in self._steps}
        self._began = time.monotonic()
        self._seconds = 0.0
        self.broken: list[dict[str, object]] = []
        if path is not None and path.exists():
            known = json.loads(path.read_text())
            if known["steps"] != dict(self._steps):
                raise SystemExit(f"{path} was written by other code, with steps {known['steps']}: choose a new file")
            self._struck, self._seconds, self.broken = known["struck"], known["seconds"], known["broken"]

    def struck(self, phase: str) -> set[int]:
        return set(self._struck[phase])

    def add(self, verdict: Verdict) -> None:
        self._struck[verdict.point.phase].append(verdict.point.number)
        if verdict.problems:
            self.broken.append(
                {"phase": verdict.point.phase, "point": _name(verdict), "problems": list(verdict.problems)}
            )
        if sum(map(len, self._struck.values())) % WRITTEN_EVERY == 0:
            self.write()

    def write(self) -> None:
        if self._path is None:
            return
        figures = {
            "seconds": round(self._seconds + time.monotonic() - self._began, 1),
            "steps": dict(self._steps),
            "survived": {phase: row[2] for phase, row in self.rows.items()},
            "operations": dict(sorted(self._operations.items())),
            "broken": self.broken,
            "struck": {phase: sorted(numbers) for phase, numbers in self._struck.items()},
        }
        self._path.write_text(json.dumps(figures) + "\n")

    @property
    def rows(self) -> dict[str, tuple[int, int, int]]:
        """By phase: existing steps, steps tried, steps survived."""
        lost = Counter(str(entry["phase"]) for entry in self.broken)
        rows = {
            phase: (steps, len(self._struck[phase]), len(self._struck[phase]) - lost[phase])
            for phase, steps in self._steps.items()
        }
        return {**rows, "all": tuple(map(sum, zip(*rows.values(), strict=True)))}  # type: ignore[dict-item]


def _name(verdict: Verdict) -> str:
    point = verdict.point
    twice = "" if verdict.again is None else f", and its restart at {verdict.again}"
    return f"{point.phase} {point.number} ({point.operation} {point.path[-60:]}){twice}"


def _table(title: str, record: Record) -> Table:
    table = Table(title=title)
    for column in ("phase", "steps", "struck at", "survived"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for phase, row in record.rows.items():
        table.add_row(phase, *(f"{figure:,}" for figure in row))
    return table


if __name__ == "__main__":
    raise SystemExit(main())
