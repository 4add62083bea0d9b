"""What a long command shows while it works: a live table in a terminal, plain lines elsewhere.

In: the statuses that the runtime reports about twice a second, and one-line notes. Out: always stderr,
so that stdout holds only results. In a log, each stage gives a line at its start and its end, and one
for each tenth in between, at most one per stage every `SECONDS_BETWEEN_TENTHS`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from s3t_ray.cli.show import units
from s3t_ray.cli.show.show_status import glyphs, live_view
from s3t_ray.ledger.values import RunningStage
from s3t_ray.run.reports import DeletionStatus, Failure, ShardStatus, Status
from s3t_ray.scheduler.policy.retries import OWN_FAULTS

SECONDS_BETWEEN_TENTHS = 10.0


class ProgressDisplay(Protocol):
    """Shows what a command reports while it works."""

    def note(self, text: str) -> None: ...

    def watch(self, status: Status) -> None: ...


@contextmanager
def progress(console: Console) -> Iterator[ProgressDisplay]:
    """The display that fits `console` (on stderr), for the length of a command.

    What libraries print in the meantime goes to stderr too.
    """
    with redirect_stdout(sys.stderr):
        if not console.is_terminal or console.is_dumb_terminal:
            yield LineProgress(lambda line: console.print(line, soft_wrap=True))
            return
        # Transient: the final report replaces it.
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield LiveProgress(live)


class LiveProgress:
    """Redraws one table; notes scroll above it."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def note(self, text: str) -> None:
        self._live.console.print(Text(units.printable(text), style="dim"))

    def watch(self, status: Status) -> None:
        self._live.update(live_view(status, glyphs(self._live.console)))


class LineProgress:
    """Writes one line per change since the last status."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._before: Status | None = None
        self._tenths: dict[str, tuple[int, float]] = {}  # stage id -> last reported tenth, time

    def note(self, text: str) -> None:
        self._write(units.printable(text))

    def watch(self, status: Status) -> None:
        for line in (*changes(self._before, status), *self._new_tenths(status)):
            self._write(line)
        self._before = status

    def _new_tenths(self, status: Status) -> Iterator[str]:
        now = self._clock()
        told = self._tenths
        self._tenths = {}
        for stage in status.running:
            tenth = 10 * stage.step // stage.steps if stage.steps else 0
            last, when = told.get(stage.stage_id, (0, now))
            if tenth > last and now - when >= SECONDS_BETWEEN_TENTHS:
                last, when = tenth, now
                yield _tenth_line(stage)
            self._tenths[stage.stage_id] = (last, when)


def changes(before: Status | None, after: Status) -> list[str]:
    """Lines about changes between two statuses: started and ended stages, depths, deletions, failures."""
    lines: list[str] = []
    if before is None:
        lines.append(_overview(after))
    was_running = {stage.stage_id: stage for stage in before.running} if before else {}
    is_running = {stage.stage_id for stage in after.running}
    failed = {failure.stage_id for failure in after.failures}
    shards_before = {shard.shard: shard for shard in before.shards} if before else {}

    for shard in after.shards:
        earlier = shards_before.get(shard.shard)
        ended = [s for s in was_running.values() if s.shard == shard.shard and s.stage_id not in is_running | failed]
        lines += [f"{_stage_name(s)}: {'done' if _is_live(s, shard) else 'stopped'}{_loss(s)}" for s in ended]
        if earlier is not None and (shard.trained, shard.depths) != (earlier.trained, earlier.depths):
            lines.append(_shard_line(shard, after.slices))
    lines += [f"{_stage_name(s)}: training" for s in after.running if s.stage_id not in was_running]

    told = {(failure.title, failure.attempts) for failure in before.failures} if before else set()
    lines += [
        f"{failure.title}: attempt {failure.attempts} failed{_repeated(failure)}: {units.printable(failure.error)}"
        for failure in after.failures
        if (failure.title, failure.attempts) not in told
    ]
    states = {deletion.request_id: deletion.state for deletion in before.deletions} if before else {}
    for deletion in after.deletions:
        unheard = before is None and deletion.state == "restored"
        if not unheard and states.get(deletion.request_id) != deletion.state:
            lines.append(_deletion_line(deletion))
    if after.waiting != (before.waiting if before else None):
        lines.append(units.printable(after.waiting) if after.waiting else "no worker group is waiting any more")
    if after.settled and not (before and before.settled):
        lines.append("settled")
    return lines


def _repeated(failure: Failure) -> str:
    """Says that it will be retried, unless it may be given up."""
    return ", it is tried again" if failure.attempts < OWN_FAULTS else ""


def _is_live(stage: RunningStage, shard: ShardStatus) -> bool:
    """Whether a sequence of the shard starts with the stage's slices and is live up to there."""
    depth = len(stage.slices)
    return any(
        order[:depth] == stage.slices and live >= depth for order, live in zip(shard.orders, shard.depths, strict=True)
    )


def _overview(status: Status) -> str:
    wanted = sum(shard.wanted for shard in status.shards)
    trained = sum(shard.trained for shard in status.shards)
    return (
        f"{status.name}: {units.count(status.records)} records, {units.plural(len(status.shards), 'shard')}, "
        f"{trained:,} of {wanted:,} stages trained"
    )


def _shard_line(shard: ShardStatus, slices: int) -> str:
    depth = f"depth {shard.depth} of {slices}" if shard.depth else "dead"
    return f"shard {shard.shard}: {shard.trained} of {shard.wanted} stages trained, {depth}, {shard.queued} queued"


def _stage_name(stage: RunningStage) -> str:
    return f"stage {units.short_id(stage.stage_id)} (shard {stage.shard}, slices {units.order(stage.slices, '>')})"


def _loss(stage: RunningStage) -> str:
    return "" if stage.loss is None else f", loss {stage.loss:.4f}"


def _tenth_line(stage: RunningStage) -> str:
    speed = "" if stage.tokens_per_second is None else f", {units.rate(stage.tokens_per_second)}"
    share = 100 * stage.step // stage.steps
    return f"{_stage_name(stage)}: {share}%, step {stage.step}/{stage.steps}{_loss(stage)}{speed}"


def _deletion_line(deletion: DeletionStatus) -> str:
    reached = {"pruned": deletion.pruned_at, "purged": deletion.purged_at, "restored": deletion.restored_at}
    at = reached.get(deletion.state)
    # Not its current age: a display may start long after the state was reached.
    accepted = datetime.fromisoformat(deletion.accepted_at)
    seconds = (datetime.fromisoformat(at) - accepted).total_seconds() if at else deletion.age_seconds
    return f"deletion {units.short_id(deletion.request_id)}: {deletion.state} after {units.duration(max(seconds, 0.0))}"
