"""Timing and its summary: latencies as quantiles.

In: callables. Out: frozen figures with their unit in the name. A figure without the machine and the floors of the
same run means little: `save` of `s3t_ray.sweep.result_file` puts the machine beside it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Latency:
    """Of one kind of call, made one after another."""

    calls: int
    median_ms: float
    p99_ms: float
    mean_ms: float

    @property
    def per_second(self) -> float:
        """Calls a second of one caller that waits for each."""
        return 1000 / self.mean_ms


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes; a result that is larger than the call's own work is freed outside."""
    began = time.perf_counter()
    result = call()
    took = time.perf_counter() - began
    del result
    return took


def latency(times_seconds: Iterable[float]) -> Latency:
    """Summary of measured times. ValueError when there is none."""
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
    """Time several calls in turns, so that a busy moment of the machine strikes all alike. Each gets the round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    for number in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call(number)
            times[name].append(time.perf_counter() - began)
    return {name: latency(each) for name, each in times.items()}
