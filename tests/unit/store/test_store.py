"""The guarantees of every store, for the local and the remote one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from s3t_ray.errors import StoreError
from s3t_ray.store import Store

MANIFEST = "manifest.json"
BIG = bytes(range(256)) * 12_000  # more than two chunks


def test_bytes_come_back_and_are_replaced(store: Store) -> None:
    store.write_bytes("a/b.bin", BIG)
    assert store.read_bytes("a/b.bin") == BIG
    assert store.sha256("a/b.bin") == hashlib.sha256(BIG).hexdigest()
    assert store.size("a/b.bin") == len(BIG)
    store.write_bytes("a/b.bin", b"")
    assert store.read_bytes("a/b.bin") == b""
    assert store.size("a/b.bin") == 0


def test_upload_copies_and_leaves_the_source(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BIG)
    store.upload(source, "slices/0/1/x.parquet")
    source.write_bytes(b"changed later")
    assert store.read_bytes("slices/0/1/x.parquet") == BIG


def test_files_are_sorted_relative_and_under_the_folder_only(store: Store) -> None:
    assert store.files() == store.files("stages") == []
    for path in ("stages/b/x", "stages/a/y", "stages-other/z", "config.yaml"):
        store.write_bytes(path, b"1")
    assert store.files() == ["config.yaml", "stages-other/z", "stages/a/y", "stages/b/x"]
    assert store.files("stages") == store.files("stages/") == ["stages/a/y", "stages/b/x"]
    assert store.files("stages/a/y") == ["stages/a/y"]


def test_publish_replaces_the_whole_folder(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(BIG)
    store.publish("stages/a", {"old": b"old", MANIFEST: b"1"}, MANIFEST)
    store.publish("stages/a", {"weights": source, "deep/er": b"x", MANIFEST: b"2"}, MANIFEST)
    assert store.files() == ["stages/a/deep/er", "stages/a/manifest.json", "stages/a/weights"]
    assert store.read_bytes("stages/a/weights") == BIG
    assert store.read_bytes("stages/a/manifest.json") == b"2"


def test_publish_without_its_marker_is_refused_and_changes_nothing(store: Store) -> None:
    store.publish("stages/a", {MANIFEST: b"1"})
    with pytest.raises(StoreError, match=r"marker 'manifest\.json' is not"):
        store.publish("stages/a", {"weights": b"2"})
    with pytest.raises(StoreError, match=r"marker 'weights' is not"):
        store.publish("stages/a", {"weights": b"2"}, "weights")
    assert store.files() == ["stages/a/manifest.json"]


def test_publish_from_a_file_that_is_not_there_changes_nothing(store: Store, tmp_path: Path) -> None:
    store.publish("stages/a", {MANIFEST: b"1"})
    with pytest.raises(StoreError, match="stages/a/weights"):
        store.publish("stages/a", {"weights": tmp_path / "absent", MANIFEST: b"2"})
    assert store.read_bytes("stages/a/manifest.json") == b"1"


def test_delete_is_complete_and_idempotent(store: Store) -> None:
    store.publish("stages/a", {"deep/x": b"x", MANIFEST: b"1"})
    store.publish("stages/b", {MANIFEST: b"1"})
    store.delete("stages/b/manifest.json")
    assert store.files() == ["stages/a/deep/x", "stages/a/manifest.json"]
    store.delete("stages/a")
    assert not store.exists("stages/a")
    for path in ("stages/a", "stages/a/manifest.json", "stages", "stages", "never/was"):
        store.delete(path)
    assert store.files() == []


def test_exists_sees_files_and_folders(store: Store) -> None:
    store.write_bytes("a/b/c", b"1")
    assert [store.exists(path) for path in ("a", "a/b", "a/b/c", "a/c", "b")] == [True, True, True, False, False]


@pytest.mark.parametrize("path", ["missing", "a/b/missing", "a/file/below"])
def test_what_is_missing_is_named(store: Store, path: str, tmp_path: Path) -> None:
    store.write_bytes("a/file", b"1")
    for ask in (store.read_bytes, store.sha256, store.size, lambda path: store.fetch(path, tmp_path / "cache")):
        with pytest.raises(StoreError, match=path):
            ask(path)


def test_a_folder_has_no_size(store: Store) -> None:
    store.write_bytes("a/file", b"1")
    with pytest.raises(StoreError, match="'a'"):
        store.size("a")


def test_upload_of_nothing_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="absent"):
        store.upload(tmp_path / "absent", "a/b")
    assert store.files() == []


def test_fetch_gives_a_local_file_that_follows_the_stored_one(store: Store, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    store.write_bytes("a/b", b"one")
    first = store.fetch("a/b", cache)
    assert first.read_bytes() == b"one"
    assert first == store.local_path("a/b") or first == cache / "a" / "b"
    store.write_bytes("a/b", b"two")  # the same size
    assert store.fetch("a/b", cache).read_bytes() == b"two"


def test_a_fetched_copy_lies_where_it_can_be_purged(tmp_path: Path) -> None:
    remote = Store.open("mock:///bucket/run")
    remote.write_bytes("a/b", BIG)
    assert remote.fetch("a/b", tmp_path) == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").read_bytes() == BIG
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b"]
    assert remote.local_path("a/b") is None
    with pytest.raises(StoreError, match="c/d"):
        remote.fetch("c/d", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
