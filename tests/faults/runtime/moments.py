"""Announces every durable step of a process before it happens, so that a test can kill it or fail the step.

In: an action. Out: calls of it with (operation, path) before each step. Three sources, none of which
the code under test knows of:

- the store's disk object, which announces its own steps (create, write, fsync, rename, unlink, ...);
- SQLAlchemy, for the commits of write transactions;
- the interpreter's audit events, for everything else that Python does to files: opened for writing,
  renamed, linked, removed, made, under the folders watched.

For one process only, best a forked one: audit hooks can never be taken out again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from s3t_ray.store import local
from s3t_ray.store.disk import Disk

Action = Callable[[str, str], None]
"""Told the operation and its path, relative to the watched folder where it lies in it."""

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_AUDITED = {
    "open": "open",
    "os.rename": "rename",
    "os.link": "link",
    "os.remove": "unlink",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.truncate": "truncate",
}
_SAME = {"create": "open"}  # the disk object's word -> the audit event that follows it at once


class Moments:
    """Announces each durable step under `root` to `action`, from `watch` on, in this process."""

    def __init__(self, root: Path, action: Action) -> None:
        self._root = os.fspath(root)
        self._action = action
        self._expected: tuple[str, str] | None = None  # audit event of a step that was announced already
        self._inside = False

    def watch(self) -> None:
        """From now on, until the process ends."""
        vars(local)["Disk"] = partial(Disk, self._disk)
        event.listen(Engine, "commit", self._commit)
        sys.addaudithook(self._audit)

    def say(self, operation: str, path: str = "") -> None:
        """A step that only the caller knows of."""
        self._inside = True
        try:
            self._action(operation, os.path.relpath(path, self._root) if path.startswith(self._root) else path)
        finally:
            self._inside = False

    def _disk(self, operation: str, path: str) -> None:
        self.say(operation, path)
        self._expected = (_SAME.get(operation, operation), os.path.basename(path))

    def _commit(self, connection: Connection) -> None:
        if connection.get_execution_options().get("s3t_write"):
            self.say("commit")

    def _audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self._inside or name not in _AUDITED:
            return
        operation = _AUDITED[name]
        if operation == "open" and (not isinstance(arguments[2], int) or not arguments[2] & _WRITING):
            return
        if operation == "open" and arguments[2] & os.O_DIRECTORY:
            return
        # A rename is told by its target, as the disk object does.
        path = arguments[1] if operation in ("rename", "link") else arguments[0]
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        path = os.fsdecode(path)
        if os.path.isabs(path) and not path.startswith(self._root):
            return
        expected, self._expected = self._expected, None
        if expected is not None and expected[0] == operation and _names_alike(expected[1], os.path.basename(path)):
            return
        self.say(operation, path)


def _names_alike(announced: str, actual: str) -> bool:
    """A removed temporary is renamed first, under a name that holds its own."""
    return announced == actual or actual.startswith("tmp-")
