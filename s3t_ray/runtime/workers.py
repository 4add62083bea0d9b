"""What the scheduler needs of the worker groups, as an interface and its value types.

`groups.py` is the real one, on Ray; the tests' one trains in the same process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from s3t_ray.runtime.reports import RunningStage
from s3t_ray.train.job import StageJob, StageResult


@dataclass(frozen=True)
class Finished:
    """A stage that left its worker group. Exactly one of: a result, an error, or neither (stopped)."""

    group: int
    stage_id: str
    result: StageResult | None = None
    error: str | None = None
    lost: bool = False
    """The group died with the stage: not the stage's own fault, as far as is known."""


class Workers(Protocol):
    """Worker groups, by index. Not thread-safe: the scheduler's thread is the only caller."""

    def free(self) -> tuple[int, ...]:
        """Groups that can take a stage now."""
        ...

    def submit(self, group: int, job: StageJob) -> None:
        """Begin a stage on a free group; returns at once."""
        ...

    def finished(self, wait_seconds: float) -> tuple[Finished, ...]:
        """Stages that ended since the last call; waits up to `wait_seconds` for the first."""
        ...

    def running(self) -> tuple[RunningStage, ...]:
        """The stages in training, with their last step."""
        ...

    def stop(self, stage_id: str) -> None:
        """Ask for the end of a stage at its next step; `finished` reports it."""
        ...

    def close(self) -> None:
        """End all groups."""
        ...
