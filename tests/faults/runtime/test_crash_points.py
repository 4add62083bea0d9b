"""A kill, or a full disk, at a sample of the durable steps of a run's life; after it every promise is kept.

Some 45 s on two busy cores. There are about 1,500 steps; to strike at each of them:

    python -m benchmarks.crash_points
    python -m benchmarks.crash_points --again
    python -m benchmarks.crash_points --full storage
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext

import pytest

from tests.faults.runtime import crash
from tests.faults.runtime.crash import Crashes, Point, Verdict, quick_folder

SEED = 7
KILLED, KILLED_TWICE, FULL = 14, 8, 10
RESTART_STEPS = 700

Judge = Callable[[Crashes, Point, random.Random], Verdict]


def killed(crashes: Crashes, point: Point, dice: random.Random) -> Verdict:
    return crashes.judge(point)


def killed_twice(crashes: Crashes, point: Point, dice: random.Random) -> Verdict:
    return crashes.judge(point, again=dice.randrange(RESTART_STEPS))


def full(crashes: Crashes, point: Point, dice: random.Random) -> Verdict:
    return crashes.judge_full(point, dice.choice([crash.STORAGE_FULL, crash.ALL_FULL]))


def sample() -> list[tuple[str, Verdict]]:
    """Verdicts on a seeded sample. Runs in a process of its own: forks need one without threads."""
    dice = random.Random(SEED)
    verdicts = []
    with quick_folder() as folder:
        crashes = Crashes(folder)
        crashes.prepare()
        for judge, count in ((killed, KILLED), (killed_twice, KILLED_TWICE), (full, FULL)):
            for point in dice.sample(crashes.points, count):
                verdicts.append((judge.__name__, judge(crashes, point, dice)))
        assert len(crashes.points) > 1000
    return verdicts


@pytest.fixture(scope="module")
def verdicts(processes: ForkServerContext) -> Iterator[list[tuple[str, Verdict]]]:
    with ProcessPoolExecutor(1, mp_context=processes) as pool:
        yield pool.submit(sample).result()


@pytest.mark.parametrize(("judge", "count"), [("killed", KILLED), ("killed_twice", KILLED_TWICE), ("full", FULL)])
def test_every_promise_is_kept(verdicts: list[tuple[str, Verdict]], judge: str, count: int) -> None:
    own = [verdict for name, verdict in verdicts if name == judge]
    assert len(own) == count
    assert [verdict for verdict in own if verdict.problems] == []
