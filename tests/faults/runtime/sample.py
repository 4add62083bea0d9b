"""A seeded sample of the crash harness's points, for the test suite. Runs in a process of its own: forks need
one without threads."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from s3t_ray.scheduler import purge
from tests.faults.runtime.crash import Crashes, Point, Verdict, quick_folder
from tests.faults.runtime.failing_disk import ALL_FULL, ERROR_LASTING, ERROR_ONCE, STORAGE_FULL, judge_failing

RESTART_STEPS = 700
"""A restart has about as many durable steps; one that has fewer simply ends."""


@dataclass(frozen=True)
class Sample:
    """How many points to strike at, by what happens there."""

    seed: int
    killed: int
    killed_twice: int
    full: int
    failed: int
    held: int
    powerless: int


def killed(crashes: Crashes, point: Point, dice: random.Random) -> Verdict:
    return crashes.judge(point)


def killed_twice(crashes: Crashes, point: Point, dice: random.Random) -> Verdict:
    return crashes.judge(point, again=dice.randrange(RESTART_STEPS))


def full(crashes: Crashes, point: Point, dice: random.Random) -> Verdict:
    return judge_failing(crashes, point, dice.choice([STORAGE_FULL, ALL_FULL]))


def failed(crashes: Crashes, point: Point, dice: random.Random) -> Verdict:
    return judge_failing(crashes, point, dice.choice([ERROR_ONCE, ERROR_LASTING]))


def verdicts_on(sample: Sample) -> dict[str, list[Verdict]]:
    """Verdicts by what happened."""
    dice = random.Random(sample.seed)
    judges: list[tuple[Callable[[Crashes, Point, random.Random], Verdict], int]] = [
        (killed, sample.killed),
        (killed_twice, sample.killed_twice),
        (full, sample.full),
        (failed, sample.failed),
    ]
    with quick_folder() as folder:
        crashes = Crashes(folder)
        crashes.prepare()
        found = {
            judge.__name__: [judge(crashes, point, dice) for point in dice.sample(crashes.points, count)]
            for judge, count in judges
        }
        steps = [point.number for point in crashes.points if point.phase == "together"]
        found["held"] = list(crashes.judge_held("together", dice.sample(steps, sample.held)))
        found["powerless"] = list(crashes.judge_held("together", dice.sample(steps, sample.powerless), power=dice))
        return found


def problems_without_a_purge() -> tuple[list[str], list[str]]:
    """What killing, and holding still, at the start of a phase find when exports are never erased."""
    purge.KINDS = tuple(kind for kind in purge.KINDS if kind.root is not None)
    with quick_folder() as folder:
        crashes = Crashes(folder)
        crashes.prepare()
        first = next(point for point in crashes.points if point.phase == "heal")
        (held,) = crashes.judge_held("heal", [0])
        return list(crashes.judge(first).problems), list(held.problems)
