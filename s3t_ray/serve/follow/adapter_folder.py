"""A folder as the target of a follower: its readers use `live.json`, which is replaced atomically.

In: names of adapters whose folders are next to it. Out: `live.json`. For servers that can only read folders.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from s3t_ray.errors import StoreError

LIVE_FILE = "live.json"


class AdapterFolder:
    """See `follower.Target`. A reader with an adapter in memory must check `live.json` before it answers."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / LIVE_FILE

    def loaded(self) -> frozenset[str]:
        if not self._file.exists():
            return frozenset()
        try:
            return frozenset(json.loads(self._file.read_text())["adapters"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self._file} was changed by something else", "remove it: it will be written again"
            ) from error

    def load(self, name: str, folder: Path) -> None:
        self._write(self.loaded() | {name})

    def unload(self, name: str) -> None:
        self._write(self.loaded() - {name})

    def _write(self, names: frozenset[str]) -> None:
        made = self._file.with_suffix(".tmp")
        try:
            with made.open("w") as file:
                file.write(json.dumps({"adapters": sorted(names)}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            made.replace(self._file)
        except OSError as error:
            raise StoreError(f"{self._file} cannot be written: {error.strerror}", "make its folder writable") from error
