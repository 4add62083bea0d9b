"""Reads a published stage: all code gets its manifest and the bytes of its files through this module.

In: the store and a stage id. Out: the manifest, and exactly the published bytes, or StageDamaged. A StoreError of
another class means that the storage did not respond, which says nothing about the stage. Never writes.
"""

from __future__ import annotations

import hashlib

from s3t_ray.store import layout
from s3t_ray.store.manifest import ADAPTER_FILE, Manifest, damaged, parse_manifest
from s3t_ray.store.store import Store

LARGEST_TEXT = 64 * 2**20
LARGEST_WEIGHTS = 8 * 2**30
"""Upper limits for the files of a stage, because anyone with write access to the storage may have replaced them."""


class PublishedStage:
    """One stage's folder, opened by its manifest."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.manifest = manifest
        self.folder = layout.stage_folder(manifest.stage_id)
        self._store = store

    @classmethod
    def open(cls, store: Store, stage_id: str) -> PublishedStage:
        """Read the stage's manifest. Raises StageDamaged if it is missing, invalid or belongs to another stage."""
        path = f"{layout.stage_folder(stage_id)}/{layout.MANIFEST}"
        _check_readable(store, stage_id, path)
        return cls(store, parse_manifest(store.read_bytes(path), stage_id))

    @property
    def files(self) -> dict[str, str]:
        """The sha256 of every file except the manifest, by name."""
        return {**self.manifest.files, ADAPTER_FILE: self.manifest.adapter_sha256}

    def read(self, name: str) -> bytes:
        """The published bytes of one file of the stage. Raises StageDamaged if they are missing or differ."""
        expected = self.files.get(name)
        if expected is None:
            raise damaged(self.manifest.stage_id, f"its manifest names no {name}")
        return self._read(name, expected)

    def as_it_is(self, name: str) -> bytes:
        """The current bytes of one file, published or not. Raises StageDamaged if it is missing or too large."""
        path = f"{self.folder}/{name}"
        _check_readable(self._store, self.manifest.stage_id, path)
        return self._store.read_bytes(path)

    def broken_files(self, adapter_sha256: str | None = None) -> tuple[str, ...]:
        """The names of the files that are missing or differ from those published. Reads all files.

        `adapter_sha256`: the adapter's digest from a source other than the manifest, which an attacker could have
        changed together with the adapter.
        """
        expected = self.files if adapter_sha256 is None else {**self.files, ADAPTER_FILE: adapter_sha256}
        return tuple(name for name, sha256 in sorted(expected.items()) if not self._is_whole(name, sha256))

    def strange_files(self) -> tuple[str, ...]:
        """The names of files in the folder that were not published with the stage."""
        found = {path.removeprefix(f"{self.folder}/") for path in self._store.files(self.folder)}
        return tuple(sorted(found - self.files.keys() - {layout.MANIFEST}))

    def _read(self, name: str, expected: str) -> bytes:
        data = self.as_it_is(name)
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise damaged(
                self.manifest.stage_id,
                f"{self.folder}/{name} has sha256 {found[:16]}..., its manifest says {expected[:16]}...",
            )
        return data

    def _is_whole(self, name: str, expected: str) -> bool:
        path = f"{self.folder}/{name}"
        return self._store.exists(path) and self._store.sha256(path) == expected


def _check_readable(store: Store, stage_id: str, path: str) -> None:
    """Raise StageDamaged if the file is missing or larger than any published file."""
    if not store.exists(path):
        raise damaged(stage_id, f"{path} is missing")
    most, size = LARGEST_TEXT if path.endswith(".json") else LARGEST_WEIGHTS, store.size(path)
    if size > most:
        raise damaged(stage_id, f"{path} has {size} bytes, but published files have at most {most}")


def read_manifest(store: Store, stage_id: str) -> Manifest:
    """The manifest of a published stage. Raises StageDamaged."""
    return PublishedStage.open(store, stage_id).manifest


def looks_whole(stage_id: str, files: frozenset[str]) -> bool:
    """Whether a listing of the storage contains the stage's manifest and adapter. Does not read them."""
    folder = layout.stage_folder(stage_id)
    return files.issuperset({f"{folder}/{layout.MANIFEST}", f"{folder}/{ADAPTER_FILE}"})
