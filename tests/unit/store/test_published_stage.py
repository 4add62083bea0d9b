"""A published stage hands out the bytes that were published, or says that it is damaged; paths are read as made."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from s3t_ray.errors import StageDamaged
from s3t_ray.store import layout
from s3t_ray.store.local import LocalStore
from s3t_ray.store.manifest import ADAPTER_FILE, Manifest, SliceLearned, write_manifest
from s3t_ray.store.published_stage import LARGEST_TEXT, LARGEST_WEIGHTS, PublishedStage, looks_whole
from s3t_ray.store.store import Store

FILES = {ADAPTER_FILE: b"adapter", "adapter_config.json": b"{}", "head.safetensors": b"head"}


def publish(store: Store, **changes: object) -> None:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    settings: dict[str, object] = {
        "stage_id": "s",
        "shard": 0,
        "slices": (SliceLearned(index=1, digest="d"),),
        "parents": (),
        "recipe_digest": "r",
        "base_digest": "b",
        "adapter_sha256": digests[ADAPTER_FILE],
        "files": digests,
        "losses": (),
        "steps": 0,
        "records": 0,
        "unlabelled": 0,
        "tokens": 0,
        "seconds": 0.0,
        "versions": {},
        "machine": {},
    }
    manifest = Manifest.model_validate(settings | changes)
    store.publish("stages/s", {**FILES, layout.MANIFEST: write_manifest(manifest)})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store.open(str(tmp_path / "run"))
    publish(opened)
    return opened


def test_what_was_published_is_what_is_read(store: Store) -> None:
    stage = PublishedStage.open(store, "s")
    assert {name: stage.read(name) for name in FILES} == FILES
    assert (stage.broken_files(), stage.strange_files()) == ((), ())
    assert looks_whole("s", frozenset(store.files()))


@pytest.mark.parametrize("name", FILES)
def test_a_changed_or_missing_file_is_damage(store: Store, name: str) -> None:
    stage = PublishedStage.open(store, "s")
    store.write_bytes(f"stages/s/{name}", b"other")
    with pytest.raises(StageDamaged, match=rf"stages/s/{name} has sha256"):
        stage.read(name)
    assert stage.broken_files() == (name,)
    store.delete(f"stages/s/{name}")
    with pytest.raises(StageDamaged, match=f"stages/s/{name} is missing"):
        stage.read(name)
    assert stage.broken_files() == (name,)
    assert looks_whole("s", frozenset(store.files())) == (name != ADAPTER_FILE)


def test_the_adapter_of_the_manifest_counts_not_its_list_of_files(store: Store) -> None:
    publish(store, adapter_sha256="0" * 64)
    assert PublishedStage.open(store, "s").broken_files() == (ADAPTER_FILE,)


def test_a_file_that_was_not_published_is_strange_and_never_read(store: Store) -> None:
    store.write_bytes("stages/s/extra.bin", b"x")
    stage = PublishedStage.open(store, "s")
    assert stage.strange_files() == ("extra.bin",)
    with pytest.raises(StageDamaged, match=r"names no extra\.bin"):
        stage.read("extra.bin")


def test_a_stage_without_a_manifest_of_its_own_is_damaged(store: Store) -> None:
    with pytest.raises(StageDamaged, match=r"stages/t/manifest\.json is missing"):
        PublishedStage.open(store, "t")
    publish(store, stage_id="other")
    with pytest.raises(StageDamaged, match="describes stage other"):
        PublishedStage.open(store, "s")
    store.write_bytes("stages/s/manifest.json", b"{")
    with pytest.raises(StageDamaged, match="is not a manifest"):
        PublishedStage.open(store, "s")


def test_a_file_of_a_size_that_none_was_published_with_is_never_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = PublishedStage.open(store, "s")
    # Files with holes: large to whoever asks, nothing on the disk.
    for name, size in ((layout.MANIFEST, LARGEST_TEXT), ("head.safetensors", LARGEST_WEIGHTS)):
        path = store.local_path(f"stages/s/{name}")
        assert path is not None
        os.truncate(path, size + 1)
    monkeypatch.setattr(LocalStore, "read_bytes", lambda self, path: pytest.fail(f"{path} was read"))
    with pytest.raises(StageDamaged, match=rf"head\.safetensors has {LARGEST_WEIGHTS + 1} bytes"):
        stage.read("head.safetensors")
    with pytest.raises(StageDamaged, match=r"manifest\.json has 67108865 bytes"):
        PublishedStage.open(store, "s")


def test_paths_are_read_as_they_are_made() -> None:
    assert layout.stage_of(f"{layout.stage_folder('s')}/x") == layout.stage_of("stages/s") == "s"
    step = layout.checkpoint_step_folder("s", 7)
    assert layout.stage_of(f"{step}/rank-0.safetensors") == "s"
    assert layout.checkpoint_step_of(f"{step}/rank-0.safetensors") == step
    assert layout.checkpoint_step_folder("s", 9) < layout.checkpoint_step_folder("s", 10)
    place = layout.hidden_place("b" * 64, 3, 4, "d" * 64)
    assert layout.hidden_of(f"{place.boundary(12)}/part-0.safetensors") == place
    assert place.folder.startswith(f"{layout.hidden_slice_folder('b' * 64, 3, 4)}/")
    assert layout.kind_root(place.folder) == layout.HIDDEN
    assert [layout.stage_of("slices/0/1/x.parquet"), layout.stage_of("stages/"), layout.hidden_of("hidden/x")] == [
        None
    ] * 3
