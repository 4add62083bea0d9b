"""Results as JSON, with the machine that they were measured on beside them.

In: a frozen dataclass. Out: a file. A figure without the machine means little.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any


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
