"""Measures times and summarizes them: latencies as quantiles.

In: callables. Out: frozen figures with their unit in the name. A figure means little without the machine and the floors
of the same run: `save` of `s3t_ray.sweep.result_file` adds the machine.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Latency:
    """Latency of one kind of call, made sequentially."""

    calls: int
    median_ms: float
    p99_ms: float
    mean_ms: float

    @property
    def per_second(self) -> float:
        """Calls per second of one caller that waits for each."""
        return 1000 / self.mean_ms


def seconds(call: Callable[[], object]) -> float:
    """Duration of one call, without freeing its result."""
    began = time.perf_counter()
    result = call()
    took = time.perf_counter() - began
    del result
    return took


def latency(times_seconds: Iterable[float]) -> Latency:
    """Summary of measured times. ValueError: there are none."""
    times = sorted(times_seconds)
    if not times:
        raise ValueError("nothing was measured")
    return Latency(
        calls=len(times),
        median_ms=1000 * times[len(times) // 2],
        p99_ms=1000 * times[min(len(times) - 1, int(0.99 * len(times)))],
        mean_ms=1000 * sum(times) / len(times),
    )


def side_by_side(calls: dict[str, Callable[[int], object]], rounds: int) -> dict[str, Latency]:
    """Time calls alternately, so that load on the machine affects all alike. Each call gets the round number."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    for number in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call(number)
            times[name].append(time.perf_counter() - began)
    return {name: latency(each) for name, each in times.items()}
