"""Stores the results of one experiment point by point: each is on disk as soon as it is measured.

In: a key and a callable. Out: `<name>.json`, replaced atomically after every point, so that an experiment that hits its
time limit keeps its points, and a second call measures only the missing ones. A failed point is saved with its error,
and the next is measured.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any


class OtherCard(Exception):
    """The folder holds results of another machine, which must not be mixed with this one's."""


class Points:
    """The points of one experiment. `card` describes the device. OtherCard: the file is of another device."""

    def __init__(self, path: Path, name: str, card: Mapping[str, Any]) -> None:
        self._path = path
        before = json.loads(path.read_text()) if path.exists() else {"card": dict(card), "points": {}}
        if before["card"] != dict(card):
            raise OtherCard(f"{path} was measured on {before['card']}, this is {dict(card)}: choose another folder")
        self._name, self._card = name, dict(card)
        self._points: dict[str, Any] = before["points"]
        self._failed: dict[str, str] = {}  # of this call; the next call retries them
        self._complete = False
        self._write()

    @property
    def failed(self) -> bool:
        return bool(self._failed)

    def has(self, *keys: str) -> bool:
        """Whether all of these are measured, so their shared setup can be skipped."""
        return all(key in self._points for key in keys)

    def get(self, key: str) -> Any:
        """A measured point, as JSON values."""
        return self._points[key]

    def beside(self, experiment: str, key: str) -> Any | None:
        """A point of another experiment in the same folder, or None if it was not measured."""
        path = self._path.with_name(f"{experiment}.json")
        return json.loads(path.read_text())["points"].get(key) if path.exists() else None

    def measure(self, key: str, call: Callable[[], Any]) -> None:
        """Measure one point, unless it exists. `call` returns a frozen dataclass or JSON.

        An error, such as a lack of memory or another version of a library, fails only this point.
        """
        if key in self._points:
            return
        try:
            found = call()
        except Exception as error:  # noqa: BLE001 - it is written down, shown, and decides the exit code
            self._failed[key] = f"{type(error).__name__}: {error}"
            print(f"{key}: FAILED", flush=True)
            traceback.print_exc()
            traceback.clear_frames(error.__traceback__)  # otherwise they would keep the tensors of the failed call
        else:
            self._points[key] = asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
            print(f"{key}: {json.dumps(self._points[key])}", flush=True)
        self._write()

    def skip(self, key: str, why: str) -> None:
        """Record that a point cannot be measured here, and why."""
        self.measure(key, lambda: {"not measured": why})

    def close(self) -> None:
        """Record that all points were requested."""
        self._complete = not self._failed
        self._write()

    def _write(self) -> None:
        document = {
            "experiment": self._name,
            "complete": self._complete,
            "card": self._card,
            "points": self._points,
            "failed": self._failed,
        }
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(document, indent=1) + "\n")
        os.replace(temporary, self._path)


def measured(folder: Path) -> set[str]:
    """Names of the complete experiments in `folder`."""
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {document["experiment"] for document in documents if document["complete"]}
