"""Timing and its summary: latencies as quantiles, the machine they were taken on, results as JSON.

In: callables. Out: frozen figures with their unit in the name. A figure without the machine and the
floors of the same run means little: `machine()` and the floors stand beside it in every result.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any


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


@dataclass(frozen=True)
class Machine:
    """Where and when it was measured; `load` above `cores` means that others were using it too."""

    cores: int
    memory_gib: float
    system: str
    processor: str
    python: str
    ray: str
    load: float  # processes that wanted a core, mean of the last minute


def machine() -> Machine:
    """This machine now."""
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=platform.platform(),
        processor=names[0].partition(":")[2].strip() if names else platform.machine(),
        python=platform.python_version(),
        ray=version("ray"),
        load=round(os.getloadavg()[0], 1),
    )


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


def save(path: Path, result: Any) -> Path:
    """A frozen dataclass as JSON, what it works out (its properties) included, with the machine beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": _plain(machine()), **_plain(result)}
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        derived = [name for name, item in vars(type(value)).items() if isinstance(item, property)]
        return {name: _plain(getattr(value, name)) for name in (*(field.name for field in fields(value)), *derived)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.is_file() else []
