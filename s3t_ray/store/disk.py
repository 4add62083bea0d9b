"""Durable operations on a local disk, each announced by a callback.

In: absolute paths. Out: files and folders that survive a power failure once a call has returned, and
OSErrors. The callback (`before(operation, path)`) lets a test kill the process, or fail, at every
single step. Never follows a symbolic link when removing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from s3t_ray.store.paths import MARKER, TEMPORARY, temporary_name

CHUNK_BYTES = 1 << 20
_FILE_MODE = 0o664  # never world-writable, whatever the umask
_FOLDER_MODE = 0o775

Before = Callable[[str, str], None]
"""Called before each operation (mkdir, create, write, fsync, rename, unlink, rmdir), with its path."""


def _unannounced(_operation: str, _path: str) -> None:
    return None


class Disk:
    """The disk operations. `before` is for tests."""

    def __init__(self, before: Before = _unannounced) -> None:
        self._before = before

    def make_folders(self, folder: str) -> None:
        """Create `folder` and its missing parents, durably."""
        missing: list[str] = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for path in reversed(missing):
            self._before("mkdir", path)
            try:
                os.mkdir(path, _FOLDER_MODE)
            except FileExistsError:  # another process created it in the meantime, or it is a file
                if not os.path.isdir(path):
                    raise
            self.sync_folder(os.path.dirname(path))

    def write(self, path: str, source: bytes | Path) -> None:
        """Create the file `path` with the given bytes or a copy of a file. Its bytes are durable afterwards."""
        self._before("create", path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, _FILE_MODE), "wb") as out:
            for chunk in chunks(source):
                self._before("write", path)
                out.write(chunk)
            out.flush()
            self._before("fsync", path)
            os.fsync(out.fileno())

    def rename(self, source: str, target: str) -> None:
        """Move `source` to `target` atomically. Not durable until the folder is synced."""
        self._before("rename", target)
        os.rename(source, target)

    def sync_folder(self, folder: str) -> None:
        """Make the entries of `folder` durable."""
        with opened_folder(folder) as fd:
            self._sync(fd, folder)

    def remove(self, path: str) -> None:
        """Erase a file, link or tree durably, in each folder the marker first. The path may be absent."""
        folder, name = os.path.split(path)
        with opened_folder(folder) as fd:
            if self._remove_in(fd, name, path):
                self._sync(fd, folder)

    def _remove_in(self, folder_fd: int, name: str, path: str) -> bool:
        """Erase `name` in an open folder. Returns whether there was something to erase.

        Works on folder descriptors instead of paths, so a folder that is moved or replaced in the
        meantime cannot redirect the removal to other files.
        """
        try:
            mode = os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                self._remove_folder_in(folder_fd, name, path)
            else:
                self._before("unlink", path)
                os.unlink(name, dir_fd=folder_fd)
        except FileNotFoundError:  # someone else erased it first
            return False
        return True

    def _remove_folder_in(self, folder_fd: int, name: str, path: str) -> None:
        if name.startswith(TEMPORARY):
            # Its writer may still be filling it. After this rename, the writer cannot publish an incomplete folder.
            renewed = temporary_name(name)
            self._before("rename", path)
            os.rename(name, renewed, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
            name = renewed
        while True:
            with opened_folder(name, folder_fd) as fd:
                names = os.listdir(fd)
                if MARKER in names and self._remove_in(fd, MARKER, f"{path}/{MARKER}"):
                    self._sync(fd, path)  # make the marker's removal durable before removing the files it vouches for
                for child in sorted(set(names) - {MARKER}):
                    self._remove_in(fd, child, f"{path}/{child}")
            self._before("rmdir", path)
            try:
                os.rmdir(name, dir_fd=folder_fd)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            # A writer added a file after the listing: list again.

    def _sync(self, fd: int, path: str) -> None:
        self._before("fsync", path)
        os.fsync(fd)


def chunks(source: bytes | Path) -> Iterator[bytes | memoryview]:
    """`source` in chunks of at most CHUNK_BYTES."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    else:
        view = memoryview(source)
        for start in range(0, len(view), CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]


@contextmanager
def opened_folder(path: str, folder_fd: int | None = None) -> Iterator[int]:
    """A descriptor of the folder at `path` (relative to `folder_fd`, if given). Never follows a link."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    try:
        yield fd
    finally:
        os.close(fd)
