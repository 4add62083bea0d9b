"""The batch scheduler's guarantees, on random queues run to completion."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3t_ray.ensemble.batching.batch_plan import BatchLimits, RunningRow, WaitingRow, next_step
from s3t_ray.errors import ConfigError


@dataclass
class Job:
    """A generation of the slow model: what is left to feed now, and how many tokens it makes after the prompt."""

    id: str
    prompt: int
    new: int
    comes: int  # step
    pending: int = 0
    left: int = 0


LIMITS = st.builds(
    lambda rows, more, cache: BatchLimits(rows, rows + more, cache),
    st.integers(1, 6),
    st.integers(1, 20),
    st.integers(40, 200),
)
JOBS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 10), st.integers(0, 30)), min_size=1, max_size=25)


@given(LIMITS, JOBS)
@settings(max_examples=400, deadline=None)
def test_every_generation_ends_in_order_and_within_the_limits(
    limits: BatchLimits, drawn: list[tuple[int, int, int]]
) -> None:
    jobs = [Job(f"j{at}", *sizes) for at, sizes in enumerate(sorted(drawn, key=lambda sizes: sizes[2]))]
    coming, waiting, running = list(jobs), list[Job](), list[Job]()
    admitted: list[str] = []
    steps = 0
    while coming or waiting or running:
        while coming and coming[0].comes <= steps:
            waiting.append(coming.pop(0))
        step = next_step(
            [RunningRow(job.id, job.pending, job.prompt + job.new) for job in running],
            [WaitingRow(job.id, job.prompt, job.prompt + job.new) for job in waiting],
            limits,
        )
        steps += 1
        if not waiting and not running:
            assert step.work == ()
            continue
        work = dict(step.work)
        assert len(work) == len(step.work), "nobody is fed twice"
        assert 0 < sum(work.values()) <= limits.step_tokens, "something is computed, and not too much"
        assert all(work.get(job.id) == 1 for job in running if job.pending == 1), "who decodes is never stopped"
        reading = [job for job in running if job.pending > 1]
        assert not reading or work.get(reading[0].id, 0) > 0, "the oldest prompt makes progress"
        assert list(step.admit) == [job.id for job in waiting[: len(step.admit)]], "nobody overtakes"
        for job in waiting[: len(step.admit)]:
            job.pending, job.left = job.prompt, job.new
            admitted.append(job.id)
        running += waiting[: len(step.admit)]
        del waiting[: len(step.admit)]
        assert len(running) <= limits.rows
        assert sum(job.prompt + job.new for job in running) <= limits.cache_tokens
        for job in running:
            count = work.get(job.id, 0)
            assert count <= job.pending
            job.pending -= count
            if job.pending == 0:
                job.left -= 1
                job.pending = 1
        running = [job for job in running if job.left > 0]
        assert steps < 5000, "it comes to an end"
    assert admitted == [job.id for job in jobs]


def test_a_long_prompt_does_not_stop_those_who_decode() -> None:
    running = [RunningRow("long", 1000, 1100), RunningRow("a", 1, 50), RunningRow("b", 1, 50)]
    step = next_step(running, [WaitingRow("next", 10, 20)], BatchLimits(8, 64, 10_000))
    assert step.work == (("a", 1), ("b", 1), ("long", 62)) and step.admit == ()


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    waiting = [WaitingRow("large", 90, 100), WaitingRow("small", 5, 6)]
    assert next_step([RunningRow("a", 1, 20)], waiting, BatchLimits(8, 64, 110)).admit == ()
    assert next_step([], waiting, BatchLimits(8, 128, 110)).admit == ("large", "small")


def test_limits_that_could_not_read_a_prompt_are_refused() -> None:
    with pytest.raises(ConfigError, match="more tokens per step than rows"):
        BatchLimits(8, 8, 100)
