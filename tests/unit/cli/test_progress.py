"""The display of a long command: which lines a log gets, and what a terminal shows."""

from __future__ import annotations

import io

from rich.console import Console

from s3t_ray.cli.show.live_progress import SECONDS_BETWEEN_TENTHS, LineProgress, changes, progress
from tests.fakes.command_line import FAILURE, deletion, running, shard, status


class FakeClock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_first_status_is_an_overview_and_what_runs() -> None:
    lines = changes(None, status(running=(running(),)))
    assert lines == [
        "alpaca: 2,468 records, 2 shards, 4 of 12 stages trained",
        "stage aaaaaaaaaaaa (shard 0, slices 0>1): training",
    ]


def test_an_equal_status_adds_no_line() -> None:
    same = status(running=(running(),), deletions=(deletion(),), failures=(FAILURE,))
    assert changes(same, same) == []


def test_what_a_run_waits_for_is_said_once_and_that_it_no_longer_waits() -> None:
    waits = status().model_copy(update={"waiting": "1 worker group waits for 1 GPU"})
    assert changes(status(), waits) == ["1 worker group waits for 1 GPU"]
    assert changes(waits, waits) == []
    assert changes(waits, status()) == ["no worker group is waiting any more"]


def test_a_stage_that_ends_is_done_when_its_slices_are_live() -> None:
    before = status(running=(running(),))
    after = status(shards=(shard(0, depths=(3, 2), trained=5), shard(1, (0, 0), 0)))
    assert changes(before, after) == [
        "stage aaaaaaaaaaaa (shard 0, slices 0>1): done, loss 1.2500",
        "shard 0: 5 of 6 stages trained, depth 3 of 3, 1 queued",
    ]


def test_a_stage_that_ends_without_being_published_was_stopped() -> None:
    before = status(running=(running(),))
    after = status(shards=(shard(0, depths=(1, 0), trained=1), shard(1, (0, 0), 0)))
    assert changes(before, after)[0] == "stage aaaaaaaaaaaa (shard 0, slices 0>1): stopped, loss 1.2500"


def test_a_stage_whose_end_is_seen_late_is_still_done() -> None:
    published = (shard(0, depths=(3, 2), trained=5), shard(1, (0, 0), 0))
    still_listed = status(shards=published, running=(running(),))
    assert changes(still_listed, status(shards=published)) == [
        "stage aaaaaaaaaaaa (shard 0, slices 0>1): done, loss 1.2500"
    ]


def test_a_stage_that_came_and_went_between_two_looks_still_counts() -> None:
    after = status(shards=(shard(0, trained=5), shard(1, (0, 0), 0)))
    assert changes(status(), after) == ["shard 0: 5 of 6 stages trained, depth 3 of 3, 1 queued"]


def test_each_failed_attempt_is_shown_once_and_not_as_an_end() -> None:
    failed = status(failures=(FAILURE,))
    before = status(running=(running("f" * 64),))
    assert changes(before, failed) == [
        "stage ffffffffffff: attempt 2 failed, it is tried again: loss is not finite at step 3"
    ]
    again = status(failures=(FAILURE.model_copy(update={"attempts": 3}),))
    assert changes(failed, again) == ["stage ffffffffffff: attempt 3 failed: loss is not finite at step 3"]


def test_each_state_of_a_deletion_is_shown_once() -> None:
    old = deletion("restored", "e" * 64)
    before = status(deletions=(old,))
    assert not any("deletion" in line for line in changes(None, before))
    accepted = status(deletions=(old, deletion("accepted", age_seconds=0.2)))
    assert changes(before, accepted) == ["deletion dddddddddddd: accepted after 0.2 s"]
    pruned = status(deletions=(old, deletion("pruned", age_seconds=1.0)))
    assert changes(accepted, pruned) == ["deletion dddddddddddd: pruned after 1.0 s"]


def test_settled_is_shown_when_it_becomes_true() -> None:
    assert changes(status(), status(settled=True)) == ["settled"]
    assert changes(status(settled=True), status(settled=True)) == []


def test_tenths_are_shown_once_and_not_faster_than_the_limit() -> None:
    clock, lines = FakeClock(), list[str]()
    display = LineProgress(lines.append, clock)
    for step in range(101):
        clock.now = step * SECONDS_BETWEEN_TENTHS / 20  # 10% of the stage in half the limit
        display.watch(status(running=(running(step=step, steps=100),)))
    tenths = [line for line in lines if "%" in line]
    assert [line.split("step ")[1].split(",")[0] for line in tenths] == [
        f"{step}/100" for step in (20, 40, 60, 80, 100)
    ]
    assert tenths[0] == ("stage aaaaaaaaaaaa (shard 0, slices 0>1): 20%, step 20/100, loss 1.2500, 900 tok/s")


def test_a_stage_that_loads_has_no_tenths() -> None:
    clock, lines = FakeClock(), list[str]()
    display = LineProgress(lines.append, clock)
    for second in range(100):
        clock.now = float(second)
        display.watch(status(running=(running(step=0, steps=0),)))
    assert not any("%" in line for line in lines)


def test_a_log_gets_lines_without_escape_codes() -> None:
    console = Console(file=io.StringIO(), width=40)
    with progress(console) as display:
        display.note("reading data: 12,000 records, a line longer than the forty columns of this console")
        display.watch(status(running=(running(),)))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0] == "reading data: 12,000 records, a line longer than the forty columns of this console"
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_a_table_that_is_gone_at_the_end() -> None:
    console = Console(file=io.StringIO(), width=120, height=40, force_terminal=True, legacy_windows=False)
    with progress(console) as display:
        display.note("reading data: 12,000 records")
        display.watch(status(running=(running(),)))
        display._live.refresh()  # type: ignore[attr-defined]
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "reading data: 12,000 records" in text
    assert "3/10" in text
    assert "\x1b[2K" in text  # erased lines


def test_a_dumb_terminal_gets_lines() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    with progress(console) as display:
        display.watch(status())
    assert "4 of 12 stages trained" in console.file.getvalue()  # type: ignore[attr-defined]
