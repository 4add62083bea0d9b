"""A run's storage on object stores through pyarrow.fs: S3, Google Cloud Storage and compatible servers.

An object store writes each object atomically, so a single write needs no temporary file. A published folder consists of
several objects, so its marker is written last and deleted first. In: checked relative paths. Out: objects under the
root; StoreError.

The bucket's owner must disable versioning and soft delete (a deleted object must be gone), and set a lifecycle rule
that aborts incomplete multipart uploads (a killed writer leaves an invisible one).
If two publishers write to the same folder at once, their files can mix; readers compare the digests in the marker.
Never imported for local storage, because it loads pyarrow.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from s3t_ray.errors import StoreError
from s3t_ray.store.disk import CHUNK_BYTES, Disk, chunks
from s3t_ray.store.paths import MARKER, TEMPORARY, clean_folder, clean_path, explained, shown
from s3t_ray.store.store import Store, publication, require_file

_WITHOUT_FOLDERS = ("s3", "gcs")


class RemoteStore(Store):
    """See `Store`. `base` is the root's path in `filesystem`."""

    def __init__(self, uri: str, filesystem: fs.FileSystem, base: str) -> None:
        super().__init__(uri)
        self._fs = filesystem
        self._base = base.rstrip("/")

    @classmethod
    def from_uri(cls, uri: str) -> RemoteStore:
        """The store at a URI that pyarrow.fs understands (s3://bucket/folder, gs://bucket/folder)."""
        with explained("open", "", uri):
            try:
                filesystem, base = fs.FileSystem.from_uri(uri)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise StoreError(
                    f"storage.uri {shown(uri)!r} is not supported: {error}",
                    "use a local path, s3://bucket/folder or gs://bucket/folder",
                ) from error
        return cls(uri, filesystem, base)

    def read_bytes(self, path: str) -> bytes:
        with explained("read", path, self.uri), self._fs.open_input_stream(self._at(path)) as stream:
            return bytes(stream.read())

    def sha256(self, path: str) -> str:
        total = hashlib.sha256()
        with explained("read", path, self.uri), self._fs.open_input_stream(self._at(path)) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                total.update(chunk)
        return total.hexdigest()

    def write_bytes(self, path: str, data: bytes) -> None:
        with explained("write", path, self.uri):
            self._put(self._at(path), data)

    def upload(self, local: Path, path: str) -> None:
        require_file(local, path)
        with explained("write", path, self.uri):
            self._put(self._at(path), local)

    def exists(self, path: str) -> bool:
        with explained("look for", path, self.uri):
            return self._info(self._at(path)).type != fs.FileType.NotFound

    def files(self, prefix: str = "") -> list[str]:
        folder = clean_folder(prefix)
        with explained("list", folder, self.uri):
            start = self._at(folder) if folder else self._base
            if folder and self._info(start).is_file:
                return [folder]
            return sorted(path.removeprefix(f"{self._base}/") for path in self._files_under(start))

    def size(self, path: str) -> int:
        with explained("read", path, self.uri):
            info = self._info(self._at(path))
            if not info.is_file:
                raise FileNotFoundError("there is no such file")
            return int(info.size)

    def publish(self, folder: str, files: Mapping[str, bytes | Path], marker: str = MARKER) -> None:
        folder, ordered = publication(folder, files, marker)
        self.delete(folder)
        with explained("publish", folder, self.uri):
            for name, source in ordered:
                self._put(f"{self._at(folder)}/{name}", source)

    def delete(self, path: str) -> None:
        place = self._at(path)
        with explained("delete", path, self.uri):
            info = self._info(place)
            if info.type == fs.FileType.NotFound:
                return
            if info.is_file:
                self._fs.delete_file(place)
                return
            for marker in self._files_under(place):
                if os.path.basename(marker) == MARKER:
                    self._fs.delete_file(marker)
            self._fs.delete_dir(place)

    def local_path(self, path: str) -> None:
        clean_path(path)

    def fetch(self, path: str, cache: Path) -> Path:
        place = self._at(path)
        copy = cache / path
        with explained("fetch", path, self.uri):
            self._download(place, copy)
        return copy

    def temporaries(self) -> list[str]:
        return []  # objects are written atomically

    def sweep(self, prefix: str = "") -> int:
        clean_folder(prefix)
        return 0  # there are none

    def _at(self, path: str) -> str:
        return f"{self._base}/{clean_path(path)}"

    def _info(self, place: str) -> fs.FileInfo:
        return self._fs.get_file_info(place)

    def _files_under(self, place: str) -> list[str]:
        infos = self._fs.get_file_info(fs.FileSelector(place, recursive=True, allow_not_found=True))
        return [info.path for info in infos if info.is_file]

    def _put(self, place: str, source: bytes | Path) -> None:
        if self._fs.type_name not in _WITHOUT_FOLDERS:
            self._fs.create_dir(os.path.dirname(place), recursive=True)
        stream = self._fs.open_output_stream(place)
        try:
            for chunk in chunks(source):
                stream.write(chunk)
        except BaseException:
            # pyarrow can close a stream but not abort it. If closing fails too, the old object is unchanged.
            # If closing succeeds, the object holds only part of the new bytes and must be deleted.
            with suppress(OSError):
                stream.close()
                self._fs.delete_file(place)
            raise
        stream.close()

    def _download(self, place: str, copy: Path) -> None:
        temporary = copy.with_name(f"{TEMPORARY}{copy.name}-{secrets.token_hex(8)}")
        with self._fs.open_input_stream(place) as stream:
            Disk().make_folders(str(copy.parent))
            try:
                with temporary.open("wb") as out:
                    while chunk := stream.read(CHUNK_BYTES):
                        out.write(chunk)
                temporary.replace(copy)
            finally:
                temporary.unlink(missing_ok=True)
