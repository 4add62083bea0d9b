"""The interface to a run's storage: small atomic operations on paths relative to its root.

In: a storage URI (a local path, file://, s3://, gs://) and relative POSIX paths. Out: bytes, lists
of paths, StoreError. There are two implementations: `local.py` (temporary file, fsync, rename, fsync
of the folder) and `remote.py` (pyarrow.fs; object stores write objects atomically).

A *published folder* is complete while its marker exists: `publish` writes the marker last, and
`delete` removes it first. Both can be killed at any time and simply called again.

The store never follows a path or a symbolic link out of the root, never leaves a partial file under
its final name, and never interprets the bytes. It never imports torch, Ray or other packages of ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from s3t_ray.errors import StoreError
from s3t_ray.store.paths import MARKER, clean_path


class Store(ABC):
    """The storage of one run. Paths are relative, with `/`. Every failure is a StoreError with a fix."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @staticmethod
    def open(uri: str) -> Store:
        """The store at `uri`. Paths and file:// URIs are local; all other schemes use pyarrow.fs.

        Creates nothing; the first file creates a local root. Raises StoreError if the scheme is unknown,
        the root is not a folder, or the bucket cannot be reached.
        """
        if "://" in uri and not uri.startswith("file://"):
            from s3t_ray.store.remote import RemoteStore

            return RemoteStore.from_uri(uri)
        from s3t_ray.store.local import LocalStore

        return LocalStore.from_uri(uri)

    @property
    def uri(self) -> str:
        """The URI that the store was opened with."""
        return self._uri

    @abstractmethod
    def read_bytes(self, path: str) -> bytes:
        """The contents of a file. Raises StoreError if it does not exist."""

    @abstractmethod
    def sha256(self, path: str) -> str:
        """The SHA-256 of a file, in hex, in bounded memory. Raises StoreError if it does not exist."""

    @abstractmethod
    def write_bytes(self, path: str, data: bytes) -> None:
        """Write `data` to `path` durably. After a crash, either the old or the new file exists, never a mixture."""

    @abstractmethod
    def upload(self, local: Path, path: str) -> None:
        """Copy the local file to `path` like `write_bytes`, in bounded memory."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether a file or folder exists at `path`. For a published folder, check its marker."""

    @abstractmethod
    def files(self, prefix: str = "") -> list[str]:
        """The paths of all files under the folder `prefix` ("": the entire run), sorted, without temporaries."""

    @abstractmethod
    def size(self, path: str) -> int:
        """The size of a file in bytes. Raises StoreError if it does not exist."""

    @abstractmethod
    def publish(self, folder: str, files: Mapping[str, bytes | Path], marker: str = MARKER) -> None:
        """Write all `files` (name in the folder -> bytes, or a local file to copy) to `folder`, `marker` last.

        Replaces the previous contents of `folder` entirely. All files are durable when this returns. The
        marker always has the same name, because `delete` must recognize it.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Erase a file or an entire folder, each marker before the files it vouches for. It may be absent.

        If killed, it leaves the rest visible to `files`, and calling it again erases the rest. It also
        erases what a killed `publish` or `write_bytes` of the same path left behind.
        """

    @abstractmethod
    def local_path(self, path: str) -> Path | None:
        """The location of `path` on this machine's disk, whether it exists or not; None for a remote store."""

    @abstractmethod
    def fetch(self, path: str, cache: Path) -> Path:
        """A local file with the content of `path`: the file itself, or a new copy at `cache / path`.

        Such a copy is a copy of the run's data: the owner of `cache` must purge it together with `path`.
        """

    @abstractmethod
    def temporaries(self) -> list[str]:
        """The temporary files and folders of active or killed writers, sorted. `files` does not list them."""

    @abstractmethod
    def sweep(self, prefix: str = "") -> int:
        """Erase the temporaries that killed writers left under the folder `prefix`. Returns their number.

        `files` does not list them, so a purge based on `files` must also sweep. An active writer loses
        its temporary and fails with StoreError; its partial output never becomes visible.
        """


def publication(
    folder: str, files: Mapping[str, bytes | Path], marker: str
) -> tuple[str, list[tuple[str, bytes | Path]]]:
    """The checked folder and files, marker last. For the implementations of Store. Raises StoreError."""
    if marker not in files or marker != MARKER:
        raise StoreError(
            f"cannot publish {folder!r}: its marker {marker!r} is not {MARKER!r} or not among {sorted(files)}",
            f"add a file {MARKER!r} that describes the others",
        )
    for name, source in files.items():
        if isinstance(source, Path):
            require_file(source, f"{folder}/{name}")
    ordered = [(clean_path(name), files[name]) for name in sorted(files, key=lambda name: (name == marker, name))]
    return clean_path(folder), ordered


def require_file(local: Path, path: str) -> None:
    """Raise StoreError if `local`, to be stored at `path`, is not a file. For the implementations of Store."""
    if not local.is_file():
        raise StoreError(f"cannot store {local} as {path!r}: there is no such file", "check that it was written")
