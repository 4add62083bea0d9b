"""A run's storage on a local disk.

Every file and every published folder is written under a temporary name in the same folder, synced to disk, and renamed
into place. So at any time, and after any crash, everything with a final name is complete. In: checked relative paths.
Out: files under the root; StoreError. Never follows a symbolic link below the root.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from s3t_ray.errors import StoreError
from s3t_ray.store.disk import Before, Disk
from s3t_ray.store.paths import MARKER, TEMPORARY, clean_folder, clean_path, explained, is_temporary_of, temporary_name
from s3t_ray.store.store import Store, publication, require_file

_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


class LocalStore(Store):
    """See `Store`. `before` is called before every change to the disk (for tests)."""

    def __init__(self, uri: str, root: Path, before: Before | None = None) -> None:
        super().__init__(uri)
        self._root = os.path.realpath(root)  # the root itself may be reached through links
        self._disk = Disk(before) if before else Disk()
        if os.path.lexists(self._root) and not os.path.isdir(self._root):
            raise StoreError(f"storage.uri {uri!r} is a file, not a folder", "use a new folder, or that of a run")

    @classmethod
    def from_uri(cls, uri: str) -> LocalStore:
        """The store at a local path or a file:// URI on this machine. Raises StoreError for an invalid URI."""
        if not uri or "\0" in uri:
            raise StoreError(f"storage.uri {uri!r} names no folder", "set storage.uri to a path or an s3:// URI")
        if not uri.startswith("file://"):
            return cls(uri, Path(uri))
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise StoreError(
                f"storage.uri {uri!r} names another machine, not a folder on this one", "write file:///folder"
            )
        return cls(uri, Path(unquote(parts.path)))

    def read_bytes(self, path: str) -> bytes:
        with explained("read", path, self.uri):
            return Path(self._at(path)).read_bytes()

    def sha256(self, path: str) -> str:
        with explained("read", path, self.uri), open(self._at(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def write_bytes(self, path: str, data: bytes) -> None:
        self._put(path, data)

    def upload(self, local: Path, path: str) -> None:
        require_file(local, path)
        self._put(path, local)

    def exists(self, path: str) -> bool:
        return os.path.exists(self._at(path))

    def files(self, prefix: str = "") -> list[str]:
        folder = clean_folder(prefix)
        with explained("list", folder, self.uri):
            start = self._at(folder) if folder else self._root
            if os.path.isfile(start):
                return [folder]
            return sorted(os.path.relpath(path, self._root) for path in _files_under(start))

    def size(self, path: str) -> int:
        with explained("read", path, self.uri):
            place = self._at(path)
            if os.path.isdir(place):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            return os.path.getsize(place)

    def publish(self, folder: str, files: Mapping[str, bytes | Path], marker: str = MARKER) -> None:
        folder, ordered = publication(folder, files, marker)
        target = self._at(folder)
        temporary = _temporary(target)
        with explained("publish", folder, self.uri):
            self._disk.make_folders(os.path.dirname(target))
            try:
                self._fill(temporary, ordered)
                self._move_into_place(temporary, target)
            except BaseException:
                self._disk.remove(temporary)
                raise

    def delete(self, path: str) -> None:
        place = self._at(path)
        folder, name = os.path.split(place)
        with explained("delete", path, self.uri):
            if not os.path.isdir(folder):
                return
            for other in sorted(os.listdir(folder)):
                if other == name or is_temporary_of(other, name):
                    self._disk.remove(os.path.join(folder, other))

    def local_path(self, path: str) -> Path:
        return Path(self._at(path))

    def fetch(self, path: str, cache: Path) -> Path:
        with explained("fetch", path, self.uri):
            place = self.local_path(path)
            if not place.is_file():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return place

    def temporaries(self) -> list[str]:
        with explained("list", "", self.uri):
            return sorted(os.path.relpath(path, self._root) for path in _temporaries_under(self._root))

    def sweep(self, prefix: str = "") -> int:
        folder = clean_folder(prefix)
        with explained("sweep", folder, self.uri):
            left_behind = list(_temporaries_under(self._at(folder) if folder else self._root))
            for path in left_behind:
                self._disk.remove(path)
            return len(left_behind)

    def _at(self, path: str) -> str:
        place = os.path.join(self._root, clean_path(path))
        if os.path.realpath(place) != place:
            raise StoreError(
                f"unsafe storage path {path!r}: it contains a symbolic link",
                f"remove the link from {self._root}; to move a run, move its entire folder",
            )
        return place

    def _put(self, path: str, source: bytes | Path) -> None:
        target = self._at(path)
        folder = os.path.dirname(target)
        temporary = _temporary(target)
        with explained("write", path, self.uri):
            self._disk.make_folders(folder)
            try:
                self._disk.write(temporary, source)
                self._disk.rename(temporary, target)
            except BaseException:
                self._disk.remove(temporary)
                raise
            self._disk.sync_folder(folder)

    def _fill(self, temporary: str, ordered: list[tuple[str, bytes | Path]]) -> None:
        places = [(os.path.join(temporary, name), source) for name, source in ordered]
        folders = sorted({temporary, *(os.path.dirname(place) for place, _ in places)})
        # Create all folders first. If a deletion removes the temporary, no later step can recreate a part of it.
        for folder in folders:
            self._disk.make_folders(folder)
        for place, source in places:
            self._disk.write(place, source)
        for folder in folders:
            self._disk.sync_folder(folder)

    def _move_into_place(self, temporary: str, target: str) -> None:
        # One rename replaces an absent or empty folder. A non-empty one is first moved aside, so that
        # neither a crash nor a second publisher can produce a mixture of the two.
        displaced: list[str] = []
        while True:
            try:
                self._disk.rename(temporary, target)
                break
            except OSError as error:
                if error.errno not in _OCCUPIED:
                    raise
            aside = _temporary(target)
            try:
                self._disk.rename(target, aside)
                displaced.append(aside)
            except FileNotFoundError:  # deleted, or moved aside by another publisher
                continue
        self._disk.sync_folder(os.path.dirname(target))
        for aside in displaced:
            self._disk.remove(aside)


def _temporary(target: str) -> str:
    folder, name = os.path.split(target)
    return os.path.join(folder, temporary_name(name))


def _files_under(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder, onerror=_raise_unless_absent):
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
        for name in names:
            place = os.path.join(parent, name)
            if not name.startswith(TEMPORARY) and not os.path.islink(place):
                yield place


def _temporaries_under(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder, onerror=_raise_unless_absent):
        for name in (*folders, *names):
            if name.startswith(TEMPORARY):
                yield os.path.join(parent, name)
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]


def _raise_unless_absent(error: OSError) -> None:
    # A folder that vanishes during the walk has no files, but an unreadable one must not look empty.
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
