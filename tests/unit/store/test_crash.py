"""Kills, power cuts and full disks: what the local store leaves behind."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from s3t_ray.errors import StoreError
from s3t_ray.store import Store
from s3t_ray.store.disk import opened_folder
from s3t_ray.store.local import LocalStore
from tests.unit.store import crash_driver
from tests.unit.store.crash_driver import NEW, OLD, SCENARIOS


def contents(store: Store, folder: str) -> dict[str, bytes]:
    return {path.removeprefix(f"{folder}/"): store.read_bytes(path) for path in store.files(folder)}


def crashed(scenario: str, folder: Path) -> list[Path]:
    """Storage roots as found after a kill before each operation; the last was not killed."""
    subprocess.run([sys.executable, crash_driver.__file__, scenario, str(folder)], check=True, timeout=120)
    return sorted(folder.iterdir(), key=lambda root: int(root.name))


def all_names(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*")]


@pytest.mark.parametrize("scenario", ["publish", "publish-again", "delete", "delete-parent"])
def test_a_marker_always_vouches_for_all_files(scenario: str, quick_disk: Path) -> None:
    roots = crashed(scenario, quick_disk)
    assert len(roots) > 5
    before = {} if scenario == "publish" else OLD
    after = NEW if scenario.startswith("publish") else {}
    found = [contents(Store.open(str(root)), "stages/a") for root in roots]
    for files in found:
        assert "manifest.json" not in files or files in (OLD, NEW)
        if scenario.startswith("publish"):
            assert files in ({}, before, after)  # a folder comes and goes as a whole
    assert found[0] == before
    assert found[-1] == after


@pytest.mark.parametrize("scenario", ["write", "write-again"])
def test_a_file_is_the_old_or_the_new_one(scenario: str, quick_disk: Path) -> None:
    roots = crashed(scenario, quick_disk)
    before = None if scenario == "write" else b"old"
    found = [
        Store.open(str(root)).read_bytes("config.yaml") if (root / "config.yaml").exists() else None for root in roots
    ]
    assert found[0] == before
    assert found[-1] == NEW["weights"]
    assert set(found) == {before, NEW["weights"]}


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_after_a_kill_the_same_change_ends_the_same(scenario: str, quick_disk: Path) -> None:
    *killed, whole = crashed(scenario, quick_disk)
    expected = contents(Store.open(str(whole)), "")
    for root in killed:
        SCENARIOS[scenario][1](LocalStore(str(root), root))
        store = Store.open(str(root))
        assert contents(store, "") == expected
        store.sweep()
        assert not [name for name in all_names(root) if name.startswith("tmp-")]


def test_deleting_erases_what_a_killed_publish_left(quick_disk: Path) -> None:
    roots = crashed("publish-again", quick_disk)
    assert any(name.startswith("tmp-") for root in roots for name in all_names(root))
    for root in roots:
        store = Store.open(str(root))
        store.publish("stages/a-b", OLD)
        store.delete("stages/a")
        assert sorted(path.name for path in (root / "stages").iterdir()) == ["a-b"]


def test_sweep_keeps_what_is_published(quick_disk: Path) -> None:
    for root in crashed("publish-again", quick_disk):
        store = Store.open(str(root))
        before = store.files()
        left = sum(name.startswith("tmp-") for name in all_names(root))
        assert store.sweep() == left
        assert store.files() == before
        assert store.sweep() == 0


def test_sweep_of_a_folder_leaves_other_folders_alone(local: Store, tmp_path: Path) -> None:
    for place in ("hidden/a/tmp-part-1", "hidden/b/tmp-part-1", "tmp-x"):
        path = tmp_path / "run" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"personal")
    assert local.temporaries() == ["hidden/a/tmp-part-1", "hidden/b/tmp-part-1", "tmp-x"]
    assert local.sweep("hidden/a") == 1
    assert local.sweep("hidden/a") == local.sweep("never") == 0
    assert local.sweep() == 2 and local.temporaries() == []


def test_bytes_and_names_are_on_the_disk_before_they_count(tmp_path: Path) -> None:
    """A power cut loses what was not synced: so each file is synced before its rename, each folder after."""
    steps: list[tuple[str, str]] = []
    store = LocalStore("run", tmp_path / "run", lambda operation, path: steps.append((operation, path)))
    store.publish("stages/a", NEW)
    store.write_bytes("config.yaml", b"1")
    for index, (operation, target) in enumerate(steps):
        if operation in ("create", "mkdir"):
            folder = os.path.dirname(target)
            until = next(step for step in steps[index:] if step[0] == "rename" or step == steps[-1])
            synced = steps[index : steps.index(until) + 2]
            if operation == "create":
                assert ("fsync", target) in synced
            assert ("fsync", folder) in synced
        if operation == "rename":
            assert steps[index + 1] == ("fsync", os.path.dirname(target))
    assert sum(operation == "rename" for operation, _ in steps) == 2


def test_every_sync_that_is_announced_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[str] = []
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    store = LocalStore("run", tmp_path, lambda operation, path: announced.append(operation))
    store.publish("a", NEW)
    store.delete("a")
    assert len(synced) == announced.count("fsync") > len(NEW)


def test_a_temporary_taken_away_while_it_is_filled_is_never_published_in_part(tmp_path: Path) -> None:
    temporary, target = tmp_path / "tmp-a-0123456789abcdef", tmp_path / "a"
    temporary.mkdir()
    (temporary / "weights").write_bytes(b"1")

    def writer_goes_on(operation: str, path: str) -> None:
        if operation == "unlink" and path.endswith("weights"):
            with suppress(FileNotFoundError):
                (temporary / "manifest.json").write_bytes(b"1")
                temporary.rename(target)

    LocalStore("run", tmp_path, writer_goes_on).delete("a")
    assert list(tmp_path.iterdir()) == []


def test_a_marker_is_gone_for_good_before_its_files(tmp_path: Path) -> None:
    Store.open(str(tmp_path)).publish("a", OLD)
    steps: list[tuple[str, str]] = []
    LocalStore(
        "run", tmp_path, lambda operation, path: steps.append((operation, os.path.relpath(path, tmp_path)))
    ).delete("a")
    assert steps[:2] == [("unlink", "a/manifest.json"), ("fsync", "a")]
    assert steps[-2:] == [("rmdir", "a"), ("fsync", ".")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failure_at_any_operation_is_explained_and_keeps_what_was(code: int, quick_disk: Path) -> None:
    count = len(record_operations(quick_disk / "count"))
    for failing in range(count):
        root = quick_disk / f"{code}-{failing}"
        Store.open(str(root)).publish("stages/a", OLD)
        seen = 0

        def before(_operation: str, path: str, failing: int = failing) -> None:
            nonlocal seen
            seen += 1
            if seen == failing + 1:
                raise OSError(code, os.strerror(code), path)

        with pytest.raises(StoreError, match="stages/a") as caught:
            LocalStore(str(root), root, before).publish("stages/a", NEW)
        assert os.strerror(code) in caught.value.problem
        files = contents(Store.open(str(root)), "stages/a")
        assert files in ({}, OLD, NEW)


def record_operations(root: Path) -> list[str]:
    Store.open(str(root)).publish("stages/a", OLD)
    steps: list[str] = []
    LocalStore(str(root), root, lambda operation, _: steps.append(operation)).publish("stages/a", NEW)
    return steps


def test_a_full_disk_is_a_clear_error_and_changes_nothing(tmp_path: Path) -> None:
    """A real refusal by the kernel: a file may not grow beyond a limit (an error of the full-disk family)."""
    program = (
        "import resource, sys\n"
        "from s3t_ray.store import Store\n"
        "from s3t_ray.errors import StoreError\n"
        "store = Store.open(sys.argv[1])\n"
        "store.publish('stages/a', {'manifest.json': b'old'})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "for call in (lambda: store.publish('stages/a', {'w': bytes(10**6), 'manifest.json': b'new'}),\n"
        "             lambda: store.write_bytes('stages/a/manifest.json', bytes(10**6))):\n"
        "    try:\n"
        "        call()\n"
        "    except StoreError as error:\n"
        "        print(error.fix)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.count("free disk space") == 2
    assert all_names(tmp_path / "run") == ["stages", "a", "manifest.json"]
    assert (tmp_path / "run" / "stages" / "a" / "manifest.json").read_bytes() == b"old"


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = Store.open(str(tmp_path / "file" / "run"))  # under a file: no one can write there, root neither
    with pytest.raises(StoreError, match=r"config\.yaml"):
        store.write_bytes("config.yaml", b"1")
    with pytest.raises(StoreError, match="stages/a"):
        store.publish("stages/a", OLD)
    store.delete("stages/a")
    assert store.files() == []


def test_nothing_is_writable_by_everyone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        Store.open(str(tmp_path / "run")).publish("stages/a", OLD)
    finally:
        os.umask(previous)
    for path in (tmp_path / "run", *(tmp_path / "run").rglob("*")):
        assert not path.stat().st_mode & 0o002


def test_publishers_and_a_deleter_at_once_never_show_a_mixture(quick_disk: Path) -> None:
    root = quick_disk / "run"
    whole = [{"weights": b"1" * n, "manifest.json": b"1" * n} for n in (1, 2)]
    mixtures: list[dict[str, bytes]] = []
    done = threading.Event()

    def publish(files: dict[str, bytes]) -> None:
        for _ in range(40):
            with suppress(StoreError):  # the deleter may take its temporary away: then nothing is published
                Store.open(str(root)).publish("stages/a", files)

    def delete() -> None:
        while not done.is_set():
            Store.open(str(root)).delete("stages/a")

    def read() -> None:
        while not done.is_set():
            with suppress(FileNotFoundError), opened_folder(str(root / "stages" / "a")) as fd:
                found = {name: file_in(fd, name) for name in os.listdir(fd)}
                os.stat("manifest.json", dir_fd=fd)  # still there, so nothing of this folder is gone yet
                if found not in whole:
                    mixtures.append(found)

    with ThreadPoolExecutor(4) as pool:
        publishers = [pool.submit(publish, files) for files in whole]
        others = [pool.submit(delete), pool.submit(read)]
        for publisher in publishers:
            publisher.result()
        done.set()
        for other in others:
            other.result()
    assert mixtures == []
    Store.open(str(root)).delete("stages/a")
    assert all_names(root / "stages") == []


def file_in(folder_fd: int, name: str) -> bytes:
    with open(os.open(name, os.O_RDONLY, dir_fd=folder_fd), "rb") as file:
        return file.read()


def test_a_folder_replaced_during_its_deletion_is_never_seen_in_part(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.publish("stages/a", OLD)
    seen: list[dict[str, bytes]] = []

    def replace_once(operation: str, path: str) -> None:
        if operation == "unlink" and path.endswith("weights") and NEW not in seen:
            store.publish("stages/a", NEW)
        seen.append(contents(store, "stages/a"))

    LocalStore(str(tmp_path), tmp_path, replace_once).delete("stages/a")
    assert NEW in seen
    assert all("manifest.json" not in files or files in (OLD, NEW) for files in seen)
    assert store.files() == []
