"""After a kill, a full disk or an I/O error at a sample of a run's durable steps, every promise is kept.

Some 45 s on two busy cores. There are about 1,600 steps; to strike at each of them:

    python -m benchmarks.crash_points
    python -m benchmarks.crash_points --again
    python -m benchmarks.crash_points --disk eio-once
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext

import pytest

from tests.faults.runtime.crash import Verdict
from tests.faults.runtime.sample import Sample, problems_without_a_purge, verdicts_on

SAMPLE = Sample(seed=7, killed=6, killed_twice=4, full=3, failed=6, held=3, powerless=6)


@pytest.fixture(scope="module")
def verdicts(processes: ForkServerContext) -> Iterator[dict[str, list[Verdict]]]:
    with ProcessPoolExecutor(1, mp_context=processes) as pool:
        yield pool.submit(verdicts_on, SAMPLE).result()


@pytest.mark.parametrize("struck", ["killed", "killed_twice", "full", "failed", "held", "powerless"])
def test_every_promise_is_kept(verdicts: dict[str, list[Verdict]], struck: str) -> None:
    assert len(verdicts[struck]) == getattr(SAMPLE, struck)
    assert [verdict for verdict in verdicts[struck] if verdict.problems] == []


def test_the_harness_finds_what_is_not_purged(processes: ForkServerContext) -> None:
    with ProcessPoolExecutor(1, mp_context=processes) as pool:
        for problems in pool.submit(problems_without_a_purge).result():
            assert any(problem.startswith("exported/adapter_model.safetensors holds 'MARKER") for problem in problems)
