"""The results of one experiment, point by point: each is on disk as soon as it is measured.

In: a key and what to measure. Out: `<name>.json`, replaced atomically after every point, so that an experiment that
is ended by its limit keeps what it had, and a second call measures only what is missing. A point that fails is
written down with its error, and the next is measured.
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
    """The folder holds results of another machine: they must not be mixed."""


class Points:
    """What one experiment has measured. `card`: where; results of another one are refused (OtherCard)."""

    def __init__(self, path: Path, name: str, card: Mapping[str, Any]) -> None:
        self._path = path
        before = json.loads(path.read_text()) if path.exists() else {"card": dict(card), "points": {}}
        if before["card"] != dict(card):
            raise OtherCard(f"{path} was measured on {before['card']}, this is {dict(card)}: name another folder")
        self._name, self._card = name, dict(card)
        self._points: dict[str, Any] = before["points"]
        self._failed: dict[str, str] = {}  # of this call: what failed is tried again by the next
        self._complete = False
        self._write()

    @property
    def failed(self) -> bool:
        return bool(self._failed)

    def has(self, *keys: str) -> bool:
        """Whether all of these are measured: then what they share need not be made ready."""
        return all(key in self._points for key in keys)

    def get(self, key: str) -> Any:
        """A point that was measured before, as JSON has it."""
        return self._points[key]

    def beside(self, experiment: str, key: str) -> Any | None:
        """A point of another experiment of the same folder, if it was measured there."""
        path = self._path.with_name(f"{experiment}.json")
        return json.loads(path.read_text())["points"].get(key) if path.exists() else None

    def measure(self, key: str, call: Callable[[], Any]) -> None:
        """Measure one point, unless it is there. `call` returns a frozen dataclass or JSON.

        What goes wrong, for want of memory or by another version of a library, fails this point alone.
        """
        if key in self._points:
            return
        try:
            found = call()
        except Exception as error:  # noqa: BLE001 - it is written down, shown, and decides the exit code
            self._failed[key] = f"{type(error).__name__}: {error}"
            print(f"{key}: FAILED", flush=True)
            traceback.print_exc()
            traceback.clear_frames(error.__traceback__)  # or they would keep the tensors of what failed
        else:
            self._points[key] = asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
            print(f"{key}: {json.dumps(self._points[key])}", flush=True)
        self._write()

    def skip(self, key: str, why: str) -> None:
        """Write down that a point cannot be measured here, and why."""
        self.measure(key, lambda: {"not measured": why})

    def close(self) -> None:
        """Every point was asked for."""
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
    """Names of the experiments in `folder` that lack nothing."""
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {document["experiment"] for document in documents if document["complete"]}
