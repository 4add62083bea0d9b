"""Kills a life at each of its durable steps, restarts it, and checks every promise.

In: a folder on a quick disk. Out: the points of all phases, and a verdict on each. A point's child is
forked from this process, so imports are paid once; this process itself opens no ledger and starts no
thread. Snapshots let each point pay for its own phase only.
"""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path

from s3t_ray.run.run import Run
from s3t_ray.scheduler.certify import software_versions
from tests.fakes import adapters
from tests.faults.runtime import life
from tests.faults.runtime.moments import Moments
from tests.faults.runtime.power import PowerWatch, cut_power, read_unsafe, write_unsafe
from tests.faults.runtime.promises import Adapters, found_in, published_and_wanted, unkept

SOURCES = ("data.jsonl", "held.jsonl")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """The `number`-th durable step of a phase, and what it is."""

    phase: str
    number: int
    operation: str
    path: str


@dataclass(frozen=True)
class Verdict:
    """Promises broken by a kill at `point`, listed in `problems`. `again`: where the restart was also killed."""

    point: Point
    again: int | None
    problems: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Child:
    """Output of a forked child, and its exit code (or minus the number of the signal)."""

    lines: tuple[str, ...]
    code: int

    @property
    def whole(self) -> tuple[str, ...]:
        """The lines of a child that was to reach its end."""
        assert self.code == 0, f"the child ended with {self.code}: {self.lines}"
        return self.lines

    @property
    def receipts(self) -> list[str]:
        return [line for line in self.lines if line.startswith("receipt ")]


@dataclass
class Crashes:
    """All points of all phases. Call `prepare` first."""

    folder: Path
    points: list[Point] = field(default_factory=list)
    _expected: dict[int, Adapters] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        """Where every life is lived: its config and ledger name absolute paths."""
        return self.folder / "life"

    def prepare(self) -> None:
        """Live every phase once undisturbed: its points, the state that it begins with, and what must come out."""
        software_versions()  # once here, so that no child looks them up again
        life.write_data(self.place)
        gc.freeze()  # or every child's collector copies this process's memory
        self._keep("")
        for phase, (after, live) in life.PHASES.items():
            self.restore(after or "")
            recorded = in_child(partial(self._record, live=live))
            for number, line in enumerate(recorded.whole):
                operation, _, path = line.partition(" ")
                self.points.append(Point(phase, number, operation, path))
            self._keep(phase)
        for count in range(len(life.requests(self.place)) + 1):
            reference = self.folder / f"reference-{count}"
            life.write_data(reference, without=life.deleted_by(reference, count))
            (line,) = in_child(partial(_tell_reference, reference)).whole
            self._expected[count] = _read_reference(line)
        # What a restart imports is imported here, or every child would pay for it again (pandas, through pyarrow).
        for name in in_child(self._imported).whole:
            with suppress(ImportError):  # names that extensions give themselves
                import_module(name)
        gc.freeze()

    def _imported(self, tell: Tell) -> None:
        known = set(sys.modules)
        self.restore("export")
        self._live_on([])(self.place, lambda line: None)
        for name in sorted(sys.modules.keys() - known):
            if sys.modules[name].__spec__ is not None:
                tell(name)

    def judge(self, point: Point, again: int | None = None) -> Verdict:
        """Kill at the point, and the restart at its step `again`; then restart, settle and check."""
        began = time.monotonic()
        after, live = life.PHASES[point.phase]
        self.restore(after or "")
        first = in_child(lambda tell: self._doomed(tell, live, point.number))
        receipts = first.receipts
        problems = [] if first.code == -signal.SIGKILL else [f"was not reached: {first.lines}"]
        if again is not None:
            receipts += in_child(lambda tell: self._doomed(tell, self._live_on(first.receipts), again)).receipts
        problems += self.check(receipts)
        return Verdict(point, again, tuple(problems), time.monotonic() - began)

    def judge_held(self, phase: str, numbers: Iterable[int], power: random.Random | None = None) -> Iterator[Verdict]:
        """A verdict on each of these points of a phase, which is lived once.

        At each of them the process holds still, and a copy of its folder is restarted: what a kill there
        leaves, since what a process has written survives it, and what it holds in memory does not. It costs
        half of killing a new process for each (`judge`), which lives the phase again up to its point.
        `power`: the machine loses its power there, and the copy is without some of what was not synced (`power.py`).
        """
        after, live = life.PHASES[phase]
        points = {point.number: point for point in self.points if point.phase == phase}
        wanted = frozenset(numbers)
        self.restore(after or "")
        go_on, gate = os.pipe()
        receipts: list[str] = []
        unsafe = None if power is None else self.folder / "unsafe.json"
        with forked(lambda tell: self._held(tell, live, wanted, go_on, gate, unsafe)) as lines:
            for line in lines:
                if line.startswith("point "):
                    began = time.monotonic()
                    problems = self.check_copy(receipts, unsafe, power)
                    yield Verdict(points[int(line.split()[1])], None, tuple(problems), time.monotonic() - began)
                    os.write(gate, b".")
                else:
                    assert line.startswith("receipt ") or line in life.SAID, line
                    receipts += [line] if line.startswith("receipt ") else []
        os.close(go_on)
        os.close(gate)

    def check(self, receipts: Sequence[str]) -> list[str]:
        """Restart and settle. Returns the broken promises."""
        last = in_child(lambda tell: self._live_on(receipts)(self.place, tell))
        problems = [line.removeprefix("problem ") for line in last.lines if line.startswith("problem ")]
        if last.code:
            problems.append(f"the restart ended with {last.code}: {last.lines[-1:]}")
        return problems

    def _record(self, tell: Tell, live: life.Phase) -> None:
        moments = Moments(self.place, lambda operation, path: tell(f"{operation} {path}"))
        moments.watch()
        live(self.place, lambda line: moments.say("acknowledge", line))

    def _doomed(self, tell: Tell, live: life.Phase, number: int) -> None:
        """Live until the step, and die there; what was acknowledged before it has been told."""
        left = number

        def count_down(_operation: str, _path: str) -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        moments = Moments(self.place, count_down)
        moments.watch()

        def acknowledge(line: str) -> None:
            moments.say("acknowledge", line)
            tell(line)

        live(self.place, acknowledge)

    def _held(
        self, tell: Tell, live: life.Phase, wanted: frozenset[int], go_on: int, gate: int, unsafe: Path | None
    ) -> None:
        """Live the phase; at each wanted step say so, and wait. `unsafe`: where to write what a power cut may undo."""
        os.close(gate)
        number = 0
        power = None if unsafe is None else PowerWatch(self.place, self.folder / "kept")
        if power is not None:
            power.watch()

        def hold(_operation: str, _path: str) -> None:
            nonlocal number
            if number in wanted:
                if power is not None and unsafe is not None:
                    write_unsafe(unsafe, power.unsafe())
                tell(f"point {number}")
                if not os.read(go_on, 1):
                    os._exit(1)  # whoever asked is gone
            number += 1

        moments = Moments(self.place, hold)
        moments.watch()

        def acknowledge(line: str) -> None:
            moments.say("acknowledge", line)
            tell(line)

        live(self.place, acknowledge)

    def check_copy(self, receipts: Sequence[str], unsafe: Path | None, power: random.Random | None) -> list[str]:
        """`check` on a copy in the folder's own place: config and ledger name absolute paths."""
        held = self.folder / "held"
        self.place.rename(held)
        shutil.copytree(held, self.place)
        if unsafe is not None and power is not None:
            cut_power(self.place, read_unsafe(unsafe), power)
        try:
            return self.check(receipts)
        finally:
            shutil.rmtree(self.place)
            held.rename(self.place)

    def _live_on(self, receipts: Sequence[str]) -> life.Phase:
        def go_on(folder: Path, tell: Tell) -> None:
            """Restart, settle, check; then ask for every deletion (again), settle and check once more."""
            config = life.config_of(folder)
            with Run.create(config) as run:
                before = published_and_wanted(run)
                handed_out = [row.text for row in run.ledger.log()]
            lived = life.Life(config)
            lived.settle()
            run = lived.run
            twice = before & {job.stage_id for job in lived.workers.trained}
            problems = [f"trained again though it was published: {sorted(twice)}"] if twice else []
            acknowledged = [line.split()[2] for line in receipts]
            count = len(run.ledger.deletions())
            problems += unkept(run, acknowledged, self._expected[count], handed_out) + self._leaks(count)
            handed_out = [row.text for row in run.ledger.log()]
            for number in range(len(life.requests(folder))):
                life.accept(run, folder, number, tell)
            lived.settle()
            last = len(life.requests(folder))
            problems += unkept(run, acknowledged, self._expected[last], handed_out) + self._leaks(last)
            for problem in dict.fromkeys(problems):
                tell(f"problem {problem}")

        return go_on

    def _leaks(self, count: int) -> list[str]:
        gone = life.deleted_by(self.place, count)
        return found_in(self.place, [*gone, *map(life.secret, gone)], SOURCES)

    def _keep(self, phase: str) -> None:
        shutil.copytree(self.place, self.folder / f"after-{phase}")

    def restore(self, phase: str) -> None:
        shutil.rmtree(self.place)
        shutil.copytree(self.folder / f"after-{phase}", self.place)


def in_child(work: Callable[[Tell], None]) -> Child:
    """Run `work` in a fork, until it ends or dies."""
    pid, reader = _fork(work)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        lines = pipe.read().splitlines()
    return Child(tuple(lines), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


@contextmanager
def forked(work: Callable[[Tell], None]) -> Iterator[Iterator[str]]:
    """What `work`, in a fork, tells, line by line as it comes; it must reach its end, unless it is left early."""
    pid, reader = _fork(work)
    try:
        with os.fdopen(reader, encoding="utf-8") as pipe:
            yield (line.rstrip("\n") for line in pipe)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, f"the child ended with {code}"


def _fork(work: Callable[[Tell], None]) -> tuple[int, int]:
    """The child's id, and the end of the pipe that it tells to."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run_and_exit(work, writer)
    os.close(writer)
    return child, reader


def _run_and_exit(work: Callable[[Tell], None], writer: int) -> None:
    def tell(line: str) -> None:
        os.write(writer, f"{line}\n".encode())

    code = 1
    try:
        work(tell)
        code = 0
    finally:
        if code:
            tell("error " + json.dumps(traceback.format_exc(limit=-3)))
        os._exit(code)


def _tell_reference(folder: Path, tell: Tell) -> None:
    lived = life.Life(life.config_of(folder))
    lived.settle()
    tell(json.dumps([[shard, slices, data.hex()] for (shard, slices), data in adapters(lived.run).items()]))


def _read_reference(line: str) -> Adapters:
    return {(shard, tuple(slices)): bytes.fromhex(data) for shard, slices, data in json.loads(line)}


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder on the quickest disk there is: durable steps are counted here, not timed."""
    shared = Path("/dev/shm")
    parent = shared if os.access(shared, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="s3t-crash-", dir=parent) as folder:
        yield Path(folder)
