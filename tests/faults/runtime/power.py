"""Simulates a power cut: unsynced writes are lost in any order, and renames may survive without their contents.

In: a folder in which this process works. Out: the losses that are possible at an instant, and a copy of the folder with
some of them. A file's bytes are safe once it was synced; a name (made, renamed, removed) once its folder was. Files
that SQLite writes are left as they are: its commits are synced by itself (`test_commits_reach_the_disk`).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from s3t_ray.config.location import LEDGER_FILE


@dataclass
class Unsafe:
    """What a power cut at this instant may undo, by path relative to the folder."""

    contents: list[str] = field(default_factory=list)
    """Files whose bytes may be gone: the name stays, empty or cut."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Names that may be back where they were: new name -> old name."""
    removed: dict[str, str] = field(default_factory=dict)
    """Files that may be back: name -> where a copy is kept."""


class PowerWatch:
    """Follows what this process writes under `root`; for one process only, best a forked one."""

    def __init__(self, root: Path, kept: Path) -> None:
        self._root, self._kept = os.fspath(root), kept
        kept.mkdir(parents=True, exist_ok=True)
        self._safe = {os.stat(path).st_ino: _state(path) for path in self._files()}
        self._unsafe = Unsafe()
        self._busy = False

    def watch(self) -> None:
        """From now on, until the process ends."""
        sync = os.fsync

        def fsync(fd: int) -> None:
            sync(fd)
            self._synced(os.readlink(f"/proc/self/fd/{fd}"), fd)

        vars(os)["fsync"] = fsync
        sys.addaudithook(self._audit)

    def unsafe(self) -> Unsafe:
        """As it is now."""
        contents = [
            os.path.relpath(path, self._root)
            for path in self._files()
            if self._safe.get(os.stat(path).st_ino) != _state(path)
        ]
        return Unsafe(contents, dict(self._unsafe.renamed), dict(self._unsafe.removed))

    def _files(self) -> Iterable[str]:
        for folder, _, names in os.walk(self._root):
            yield from (os.path.join(folder, name) for name in names if not name.startswith(LEDGER_FILE))

    def _synced(self, path: str, fd: int) -> None:
        if not self._is_inside(path):
            return
        if not os.path.isdir(path):
            self._safe[os.fstat(fd).st_ino] = _state(path)
            return
        here = os.path.relpath(path, self._root)
        for names in (self._unsafe.renamed, self._unsafe.removed):
            for name in [name for name in names if _settles(self._root, here, name)]:
                del names[name]

    def _is_inside(self, path: str) -> bool:
        return path == self._root or path.startswith(self._root + os.sep)

    def _audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self._busy or name not in ("os.rename", "os.remove"):
            return
        self._busy = True
        try:
            if name == "os.rename":
                old, new = self._place(arguments[0], arguments[2]), self._place(arguments[1], arguments[3])
                if old is not None and new is not None:
                    self._unsafe.renamed[new] = self._unsafe.renamed.pop(old, old)
            else:
                gone = self._place(arguments[0], arguments[1])
                if gone is not None:
                    self._remove(gone)
        finally:
            self._busy = False

    def _remove(self, gone: str) -> None:
        path = os.path.join(self._root, gone)
        if os.path.basename(gone).startswith(LEDGER_FILE) or not os.path.isfile(path):
            return
        copy = os.path.join(self._kept, f"{len(self._unsafe.removed)}-{os.stat(path).st_ino}")
        if self._safe.get(os.stat(path).st_ino) == _state(path) and not os.path.exists(copy):
            os.link(path, copy)
            self._unsafe.removed[gone] = copy

    def _place(self, path: Any, folder: int) -> str | None:
        path = os.fsdecode(path)
        if not os.path.isabs(path):
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd(), path)
        return os.path.relpath(path, self._root) if self._is_inside(path) else None


def write_unsafe(path: Path, unsafe: Unsafe) -> None:
    path.write_text(json.dumps(asdict(unsafe)))


def read_unsafe(path: Path) -> Unsafe:
    return Unsafe(**json.loads(path.read_text()))


def cut_power(folder: Path, unsafe: Unsafe, dice: Random) -> None:
    """Undo a random subset of the unsafe changes in `folder`, a copy."""
    for name in unsafe.contents:
        path = folder / name
        if path.is_file() and dice.random() < 0.5:
            os.truncate(path, dice.choice([0, path.stat().st_size // 2]))
    for new, old in reversed(list(unsafe.renamed.items())):
        if (folder / new).exists() and not (folder / old).exists() and dice.random() < 0.5:
            (folder / old).parent.mkdir(parents=True, exist_ok=True)
            (folder / new).rename(folder / old)
    for name, copy in unsafe.removed.items():
        if not (folder / name).exists() and (folder / name).parent.is_dir() and dice.random() < 0.5:
            shutil.copy(copy, folder / name)


def _settles(root: str, synced: str, name: str) -> bool:
    """Whether a sync of the folder `synced` makes the change to `name` last."""
    parent = os.path.dirname(name) or "."
    while parent != "." and not os.path.isdir(os.path.join(root, parent)):
        parent = os.path.dirname(parent) or "."  # the folder is gone with its names
    return parent == synced


def _state(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns
