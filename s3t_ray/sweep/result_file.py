"""Writes results as JSON, together with the machine that they were measured on.

In: a frozen dataclass. Out: a file, written atomically: an earlier file of that name remains until the new one is on
disk.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from s3t_ray.store.local import LocalStore
from s3t_ray.store.paths import is_temporary_of


@dataclass(frozen=True)
class Machine:
    """The machine of a measurement. A `load` above `cores` means that other processes were using it."""

    cores: int
    memory_gib: float
    system: str
    processor: str
    python: str
    ray: str
    load: float  # load average of the last minute


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
    """Write a frozen dataclass as JSON, including its properties and the machine. Raises StoreError."""
    document = {"machine": _plain(machine()), **_plain(result)}
    write_whole(path, json.dumps(document, indent=1) + "\n")
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file atomically and durably, creating its folder. Only one writer at a time.

    Also erases what a killed writer of the same file left behind. Raises StoreError, and changes nothing, on failure.
    """
    LocalStore.from_uri(str(path.parent)).write_bytes(path.name, text.encode())
    for other in path.parent.iterdir():
        if is_temporary_of(other.name, path.name):
            other.unlink()


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
