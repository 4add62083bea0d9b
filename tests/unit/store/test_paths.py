"""No path can leave the storage root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3t_ray.errors import StoreError
from s3t_ray.store import Store
from s3t_ray.store.paths import clean_path, explained, shown

ESCAPES = [
    "",
    "/etc/passwd",
    "..",
    "../outside",
    "a/../../outside",
    "a/..",
    "a/./b",
    ".",
    "a//b",
    "a/",
    "//a",
    "a\0b",
    "a/\ud800",
    "tmp-x",
    "a/tmp-x/b",
]


@pytest.mark.parametrize("path", ESCAPES)
def test_unsafe_paths_are_refused_by_every_call(store: Store, path: str, tmp_path: Path) -> None:
    calls = [
        lambda: store.read_bytes(path),
        lambda: store.write_bytes(path, b"x"),
        lambda: store.upload(Path(__file__), path),
        lambda: store.exists(path),
        lambda: store.size(path),
        lambda: store.publish(path, {"manifest.json": b"x"}),
        lambda: store.publish("folder", {path: b"x", "manifest.json": b"x"}),
        lambda: store.delete(path),
        lambda: store.local_path(path),
        lambda: store.fetch(path, tmp_path / "cache"),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="unsafe storage path"):
            call()
    assert store.files() == []
    assert not (tmp_path / "outside").exists()


@given(st.text(alphabet=st.sampled_from("./ab\0\\~-"), max_size=12) | st.text(max_size=8))
def test_an_accepted_path_is_a_normal_relative_one(path: str) -> None:
    try:
        accepted = clean_path(path)
    except StoreError:
        return
    assert accepted == path == os.path.normpath(path)
    assert os.path.normpath(os.path.join("/run", path)).startswith("/run/")


@pytest.mark.parametrize("link", ["link", "folder/link"])
def test_symbolic_links_are_not_followed(local: Store, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    local.write_bytes("folder/file", b"1")
    (tmp_path / "run" / link).symlink_to(outside)
    for call in (
        lambda: local.read_bytes(f"{link}/secret"),
        lambda: local.write_bytes(f"{link}/new", b"x"),
        lambda: local.write_bytes(link, b"x"),
        lambda: local.publish(f"{link}/new", {"manifest.json": b"x"}),
        lambda: local.delete(f"{link}/secret"),
        lambda: local.delete(link),
        lambda: local.files(link),
    ):
        with pytest.raises(StoreError, match="symbolic link"):
            call()
    assert local.files() == ["folder/file"]
    assert sorted(os.listdir(outside)) == ["secret"]


def test_deleting_and_sweeping_remove_links_but_not_what_they_point_at(local: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "manifest.json").write_bytes(b"keep")
    local.write_bytes("folder/file", b"1")
    (tmp_path / "run" / "folder" / "link").symlink_to(outside)
    (tmp_path / "run" / "tmp-link").symlink_to(outside)
    assert local.sweep() == 1
    local.delete("folder")
    assert os.listdir(tmp_path / "run") == []
    assert (outside / "manifest.json").read_bytes() == b"keep"


def test_the_root_itself_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    Store.open(str(tmp_path / "link" / "run")).write_bytes("a", b"1")
    assert (tmp_path / "real" / "run" / "a").read_bytes() == b"1"


def test_file_uris_are_local(tmp_path: Path) -> None:
    store = Store.open(f"file://{tmp_path}/a%20run")
    store.write_bytes("a", b"1")
    assert (tmp_path / "a run" / "a").read_bytes() == b"1"
    assert store.uri == f"file://{tmp_path}/a%20run"


@pytest.mark.parametrize("uri", ["", "a\0b", "file://host/run", "file://", "nowhere://run", "s3://b/run?nonsense=1"])
def test_uris_that_name_no_storage_are_refused(uri: str) -> None:
    with pytest.raises(StoreError, match=r"storage\.uri"):
        Store.open(uri)


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="not a folder"):
        Store.open(str(tmp_path / "file"))


def test_messages_show_no_secret_of_a_uri() -> None:
    assert shown("s3://key:secret@bucket/run?session_token=t") == "s3://bucket/run"
    assert shown("/a?b@c") == "/a?b@c"
    with pytest.raises(StoreError) as caught, explained("read", "x", "s3://key:secret@bucket/run"):
        raise OSError("no route")
    assert "secret" not in str(caught.value)
    assert "no route" in str(caught.value)
