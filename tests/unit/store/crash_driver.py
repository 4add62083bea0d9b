"""Runs one change of a local store in children that are killed before each of its disk operations.

`python crash_driver.py SCENARIO FOLDER` makes FOLDER/0, FOLDER/1, ...: the storage as it was found
after a SIGKILL before operation 0, 1, ...; the last one ran to its end. A process of its own, so
that the forks happen where no other thread is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from s3t_ray.store.disk import CHUNK_BYTES
from s3t_ray.store.local import LocalStore

OLD = {"weights": b"old" * 1000, "head/old": b"old", "manifest.json": b"old"}
NEW = {"weights": b"n" * (2 * CHUNK_BYTES + 1), "deep/file": b"new", "manifest.json": b"new"}


def publish_new(store: LocalStore) -> None:
    store.publish("stages/a", NEW)


def publish_old(store: LocalStore) -> None:
    store.publish("stages/a", OLD)


def delete_folder(store: LocalStore) -> None:
    store.delete("stages/a")


def delete_parent(store: LocalStore) -> None:
    store.delete("stages")


def write_old(store: LocalStore) -> None:
    store.write_bytes("config.yaml", b"old")


def write_new(store: LocalStore) -> None:
    store.write_bytes("config.yaml", NEW["weights"])


def nothing(store: LocalStore) -> None:
    assert store.files() == []


SCENARIOS: dict[str, tuple[Callable[[LocalStore], None], Callable[[LocalStore], None]]] = {
    "publish": (nothing, publish_new),
    "publish-again": (publish_old, publish_new),
    "delete": (publish_old, delete_folder),
    "delete-parent": (publish_old, delete_parent),
    "write": (nothing, write_new),
    "write-again": (write_old, write_new),
}


def killed_at(root: Path, operation: int, change: Callable[[LocalStore], None]) -> bool:
    """Whether `change` reached the operation, and so was killed."""
    child = os.fork()
    if child == 0:
        done = 0

        def before(_operation: str, _path: str) -> None:
            nonlocal done
            if done == operation:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

        change(LocalStore(str(root), root, before))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def main(scenario: str, folder: Path) -> None:
    prepare, change = SCENARIOS[scenario]
    operation = 0
    while True:
        root = folder / str(operation)
        prepare(LocalStore(str(root), root))
        if not killed_at(root, operation, change):
            return
        operation += 1


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
