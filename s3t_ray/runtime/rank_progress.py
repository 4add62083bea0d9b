"""Polls the worker groups for the progress of their stages, without ever waiting.

In: a handle of each busy group's first rank. Out: its last known step. With hundreds of groups, querying
each in every round of the scheduler would slow the round down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError

from s3t_ray.ledger.values import RunningStage
from s3t_ray.train.job import Progress, StageJob

SECONDS_BETWEEN = 0.5
QUESTIONS_A_SECOND = 100
"""Maximum queries per second over all groups."""


class ProgressReports:
    """The last answer of each group, refreshed when it is old enough. Used by one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock()
        self._asked: dict[ray.ObjectRef, int] = {}
        self._known: dict[int, Progress | None] = {}

    def of(self, ranks: Mapping[int, Any]) -> dict[int, Progress]:
        """The last known progress of these groups, by index. Some may be missing."""
        if self._asked:
            answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
            for future in answered:
                group = self._asked.pop(future)
                try:
                    self._known[group] = ray.get(future)
                except RayError:  # the rank died, which is reported with its stage
                    self._known.pop(group, None)
        if self._clock() >= self._next:
            self._next = self._clock() + max(SECONDS_BETWEEN, len(ranks) / QUESTIONS_A_SECOND)
            waiting = set(self._asked.values())
            for group, rank in ranks.items():
                if group not in waiting:
                    self._asked[rank.progress.remote()] = group
        return {group: known for group in ranks if (known := self._known.get(group)) is not None}


def running_stage(group: int, job: StageJob, progress: Progress | None) -> RunningStage:
    """The report of a stage in training. Progress of another stage is ignored."""
    if progress is not None and progress.stage_id != job.stage_id:
        progress = None
    return RunningStage(
        stage_id=job.stage_id,
        shard=job.shard,
        slices=tuple(part.slice for part in job.slices),
        group=group,
        step=progress.step if progress else 0,
        steps=progress.steps if progress else 0,
        loss=progress.loss if progress else None,
        tokens_per_second=progress.tokens_per_second if progress else None,
    )
