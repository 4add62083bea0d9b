"""The plan of a chaos run, and its result."""

from __future__ import annotations

from dataclasses import dataclass

ACTORS = {"scheduler": "ray::SchedulerActor", "shard": "ray::ShardOwner", "rank": "ray::Rank"}
"""What the title of an actor's process begins with."""

LOOKS, LOOK_SECONDS = 8, 0.5
SECONDS_A_KILL = 4.0
"""Seconds per kill, including the pause before it, on two cores; affects only the pace of deletions."""
AT_ONCE = 0.25
"""Share of the kills that follow the one before them without a pause: while others still recover from it."""


@dataclass(frozen=True)
class Plan:
    """One chaos run. Without `nodes`, the driver has a Ray of its own, which dies with it."""

    seed: int
    kills: int
    deletions: int
    """Requests of the stream; one in ten names two records, one of which an earlier one named."""
    nodes: int = 3
    ranks: int = 1
    groups: int = 2
    kinds: tuple[str, ...] = (*ACTORS, "driver", "deleter", "node", "ray.kill")
    pause_seconds: tuple[float, float] = (0.2, 4.0)
    kill_seconds: float = 3600.0
    """Stop killing after this time, even before `kills` is reached."""
    settle_seconds: float = 600.0

    @property
    def seconds_a_deletion(self) -> float:
        """Between two requests of the stream, which lasts about as long as the kills."""
        return min(self.kills * SECONDS_A_KILL, self.kill_seconds) / self.deletions


@dataclass(frozen=True)
class Report:
    """What happened to a run, and the promises it broke."""

    plan: Plan
    kills: dict[str, int]
    acknowledged: int
    lost: int
    restored: int
    certificates: int
    """Handed out in the middle of the run."""
    driver_errors: tuple[str, ...]
    problems: tuple[str, ...]
    seconds: float
    epochs: int
