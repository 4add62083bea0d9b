"""The measured device: its description, clock and memory. Imports torch only when called.

`Device("cuda")` is a GPU; `Device("cpu")` is for a dry run, whose figures mean nothing.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Peak:
    """Peak memory since `Device.reset_peak`, in bytes."""

    allocated: int  # tensors; on a CPU, the peak of the process
    reserved: int  # by torch's allocator
    context: int  # other memory of the device: kernels, libraries, other processes; 0 on a CPU

    @property
    def total(self) -> int:
        return self.reserved + self.context


class Device:
    """One GPU, or the CPU."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @property
    def on_gpu(self) -> bool:
        return self.kind == "cuda"

    @property
    def precision(self) -> str:
        return "bfloat16" if self.on_gpu else "float32"

    @property
    def fastest_norms(self) -> str:
        """The fastest value of `engine.norms` for this device."""
        return "fused" if self.on_gpu else "eager"

    def describe(self) -> dict[str, Any]:
        """Properties that two calls must share for their figures to be comparable."""
        import torch

        found = {"device": "CPU (dry run)", "torch": torch.__version__, "transformers": version("transformers")}
        if self.on_gpu:
            properties = torch.cuda.get_device_properties(0)
            found |= {
                "device": properties.name,
                "memory_bytes": properties.total_memory,
                "multiprocessors": properties.multi_processor_count,
                "cuda": torch.version.cuda,
                "driver": _driver(),
            }
        return found | {"deepspeed": version("deepspeed"), "python": platform.python_version()}

    def synchronize(self) -> None:
        if self.on_gpu:
            import torch

            torch.cuda.synchronize()

    def clock(self) -> float:
        """The clock in seconds, read after all queued work of the device is done."""
        self.synchronize()
        return time.perf_counter()

    def reset_peak(self) -> None:
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> Peak:
        if not self.on_gpu:
            own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            return Peak(own, own, 0)
        import torch

        free, total = torch.cuda.mem_get_info()
        context = total - free - torch.cuda.memory_reserved()
        return Peak(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), context)

    def release(self) -> None:
        """Free unreferenced memory."""
        gc.collect()
        if self.on_gpu:
            import torch

            torch.cuda.empty_cache()

    def milliseconds(self, call: Callable[[], object], seconds: float) -> float:
        """Median time of a call, measured for about `seconds` after a warm-up; on a GPU, between events."""
        call()
        began = self.clock()
        call()
        turns = max(3, min(200, int(seconds / max(self.clock() - began, 1e-6))))
        if not self.on_gpu:
            return median(self._wall(call) for _ in range(turns))
        import torch

        marks = [torch.cuda.Event(enable_timing=True) for _ in range(turns + 1)]
        marks[0].record()
        for mark in marks[1:]:
            call()
            mark.record()
        torch.cuda.synchronize()
        return median(first.elapsed_time(second) for first, second in pairwise(marks))

    @staticmethod
    def _wall(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - began)


def _driver() -> str:
    file = Path("/proc/driver/nvidia/version")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("NVRM version")), "unknown")


def drop_from_page_cache(folder: Path) -> None:
    """Make the next reads of these files come from disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
