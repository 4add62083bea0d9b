"""The one way to a run's storage: small atomic operations on paths relative to its root.

In: a storage URI (a local path, file://, s3://, gs://) and relative POSIX paths. Out: bytes, lists
of paths, StoreError. Two stores stand behind it: `local.py` (temporary file, fsync, rename, fsync of
the folder) and `remote.py` (pyarrow.fs; an object store makes an object visible whole or not at all).

A *published folder* is complete whenever its marker is there: `publish` makes the marker appear
last, `delete` takes it away first, and both can be killed at any instant and simply called again.

Must never: follow a path or a symbolic link out of the root, leave a half-written file under its
final name, know what the bytes mean, or import torch, Ray or anything else of ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from s3t_ray.errors import StoreError
from s3t_ray.store.paths import MARKER, clean_path


class Store(ABC):
    """Storage of one run. Paths are relative, with `/`; every failure is a StoreError that names its fix."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @staticmethod
    def open(uri: str) -> Store:
        """The store at `uri`: a path or file:// URI is local, any other scheme goes to pyarrow.fs.

        Creates nothing: a local root appears with its first file. StoreError if the URI has no known
        scheme, the root is not a folder, or the bucket cannot be reached.
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
        """The whole file. StoreError if it is not there."""

    @abstractmethod
    def sha256(self, path: str) -> str:
        """SHA-256 of the whole file, in hex, in bounded memory. StoreError if it is not there."""

    @abstractmethod
    def write_bytes(self, path: str, data: bytes) -> None:
        """Put `data` at `path`, durably: after a crash there is the old file or the new one, never a mixture."""

    @abstractmethod
    def upload(self, local: Path, path: str) -> None:
        """Put a copy of the local file at `path`, as `write_bytes` does, in bounded memory."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether a file or folder is at `path`. To ask for a published folder, ask for its marker."""

    @abstractmethod
    def files(self, prefix: str = "") -> list[str]:
        """Paths of all files under the folder `prefix` ("": the whole run), sorted, without temporaries."""

    @abstractmethod
    def size(self, path: str) -> int:
        """Bytes of one file. StoreError if it is not there."""

    @abstractmethod
    def publish(self, folder: str, files: Mapping[str, bytes | Path], marker: str = MARKER) -> None:
        """Put all `files` (name in the folder -> bytes, or a local file to copy) in `folder`, `marker` last.

        Whatever stood in `folder` is replaced as a whole. When this returns, all of it is durable.
        `delete` must know the marker from its name alone, so there is one name.
        """

    @abstractmethod
    def delete(self, path: str) -> None:
        """Erase a file or a whole folder, each marker before the files it vouches for; absent is fine.

        Killed half-way, it leaves the rest visible to `files`; calling it again erases the rest. It
        also erases what a killed `publish` or `write_bytes` of this very path left behind.
        """

    @abstractmethod
    def local_path(self, path: str) -> Path | None:
        """Where `path` lies (or would lie) on this machine's disk; None for a remote store."""

    @abstractmethod
    def fetch(self, path: str, cache: Path) -> Path:
        """A local file with the content of `path`: the file itself, or a fresh copy at `cache / path`.

        A copy is a copy of the run's data: the owner of `cache` must purge `cache / path` together with `path`.
        """

    @abstractmethod
    def temporaries(self) -> list[str]:
        """Temporary files and folders of writers that are at work or were killed, sorted: what `files` leaves out."""

    @abstractmethod
    def sweep(self, prefix: str = "") -> int:
        """Erase temporaries that killed writers left under the folder `prefix`; how many there were.

        `files` does not show them, so a purge that goes by `files` sweeps too. A writer still at work
        there loses its temporary and fails with StoreError: what it wrote is never seen in part.
        """


def publication(
    folder: str, files: Mapping[str, bytes | Path], marker: str
) -> tuple[str, list[tuple[str, bytes | Path]]]:
    """The checked folder and its checked files, marker last (for the two stores)."""
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
    """StoreError if `local`, to be stored at `path`, is not a file (for the two stores)."""
    if not local.is_file():
        raise StoreError(f"cannot store {local} as {path!r}: there is no such file", "check that it was written")
