"""What a remote store leaves when it is stopped before any of its requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from s3t_ray.errors import StoreError
from s3t_ray.store import remote
from s3t_ray.store.remote import RemoteStore
from tests.unit.store.crash_driver import NEW, OLD

CHANGES = ("open_output_stream", "delete_file", "delete_dir")


class FailingFileSystem:
    """pyarrow's in-memory filesystem that refuses its changes from the n-th on, and remembers them."""

    def __init__(self, filesystem: fs.FileSystem, changes_left: int) -> None:
        self._filesystem = filesystem
        self._changes_left = changes_left
        self.changes: list[tuple[str, str]] = []

    def __getattr__(self, name: str) -> object:
        method = getattr(self._filesystem, name)
        return self._counted(name, method) if name in CHANGES else method

    def _counted(self, name: str, method: Callable[[str], object]) -> Callable[[str], object]:
        def call(path: str) -> object:
            if len(self.changes) == self._changes_left:
                raise OSError("the network is gone")
            self.changes.append((name, path))
            return method(path)

        return call


def publish_new(store: RemoteStore) -> None:
    store.publish("stages/a", NEW)


def delete_folder(store: RemoteStore) -> None:
    store.delete("stages/a")


def delete_parent(store: RemoteStore) -> None:
    store.delete("stages")


def contents(store: RemoteStore) -> dict[str, bytes]:
    return {path.removeprefix("stages/a/"): store.read_bytes(path) for path in store.files()}


@pytest.mark.parametrize("change", [publish_new, delete_folder, delete_parent])
def test_a_marker_vouches_for_all_files_wherever_the_network_breaks(change: Callable[[RemoteStore], None]) -> None:
    broken = 0
    while True:
        filesystem, base = fs.FileSystem.from_uri("mock:///bucket/run")
        store = RemoteStore("mock://", filesystem, base)
        store.publish("stages/a", OLD)
        failing = RemoteStore("mock://", FailingFileSystem(filesystem, broken), base)
        try:
            change(failing)
        except StoreError as error:
            assert "the network is gone" in error.problem
        else:
            break
        found = contents(store)
        assert "manifest.json" not in found or found in (OLD, NEW)
        change(store)
        assert contents(store) == (NEW if change is publish_new else {})
        broken += 1
    assert broken >= 2


def test_the_marker_is_written_last_and_deleted_first() -> None:
    filesystem, base = fs.FileSystem.from_uri("mock:///bucket/run")
    recording = FailingFileSystem(filesystem, changes_left=100)
    store = RemoteStore("mock://", recording, base)
    store.publish("stages/a", {"manifest.json": b"1", "zz": b"2"})
    store.delete("stages/a")
    assert [(name, path.removeprefix(f"{base}/stages/a")) for name, path in recording.changes] == [
        ("open_output_stream", "/zz"),
        ("open_output_stream", "/manifest.json"),
        ("delete_file", "/manifest.json"),
        ("delete_dir", ""),
    ]


def test_a_source_that_cannot_be_read_to_its_end_leaves_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_source: bytes | Path) -> Iterator[bytes]:
        yield b"the first part"
        raise OSError("the disk is gone")

    store = RemoteStore.from_uri("mock:///bucket/run")
    monkeypatch.setattr(remote, "chunks", broken)
    with pytest.raises(StoreError, match="the disk is gone"):
        store.write_bytes("a/b", b"all of it")
    assert store.files() == []
