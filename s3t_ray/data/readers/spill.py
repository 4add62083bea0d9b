"""Groups rows by place in bounded memory: earlier rows in one file per place, the latest in memory.

In: rows of any place, one by one. Out: the rows of a place, in order of arrival. Opens one file at a
time, however many places there are. Never exceeds its memory limit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from s3t_ray.data.partition import Place
from s3t_ray.data.slice_file import DIGEST_BYTES, Row, row_bytes
from s3t_ray.errors import StoreError

_LENGTHS = struct.Struct(">II")  # bytes of the id, bytes of the content
_ROW_OVERHEAD = 300  # bytes that Python needs per row in addition to its data


class Spill:
    """Accepts rows of many places and returns them place by place. Stores its files in `folder`."""

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self.places: set[Place] = set()
        self._folder = folder
        self._limit = memory_bytes
        self._held = 0
        self._rows: dict[Place, list[Row]] = {}
        self._bytes: dict[Place, int] = {}

    def add(self, place: Place, row: Row) -> None:
        """Add one row. Raises StoreError if the disk is full or not writable."""
        size = row_bytes(row) + _ROW_OVERHEAD
        self.places.add(place)
        self._rows.setdefault(place, []).append(row)
        self._bytes[place] = self._bytes.get(place, 0) + size
        self._held += size
        if self._held > self._limit:
            self._write_largest()

    def take(self, place: Place) -> Iterator[Row]:
        """The rows of `place`, in the order they were added. Can be called once per place."""
        path = self._path(place)
        if path.exists():
            yield from _read(path)
            path.unlink()
        self._held -= self._bytes.pop(place, 0)
        yield from self._rows.pop(place, [])

    def _write_largest(self) -> None:
        # Write the largest places until half the memory is free, for few and long writes.
        for place in sorted(self._rows, key=lambda place: (-self._bytes[place], place)):
            if self._held <= self._limit // 2:
                return
            try:
                with self._path(place).open("ab") as file:
                    file.writelines(_pack(row) for row in self._rows.pop(place))
            except OSError as error:
                raise StoreError(
                    f"{self._folder} cannot be written: {error.strerror}", "free space for a second copy of the data"
                ) from error
            self._held -= self._bytes.pop(place)

    def _path(self, place: Place) -> Path:
        return self._folder / f"{place.shard}-{place.slice}.rows"


def _pack(row: Row) -> bytes:
    name, content = row.id.encode(), row.content.encode()
    return b"".join((_LENGTHS.pack(len(name), len(content)), name, content, row.digest))


def _read(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        while head := file.read(_LENGTHS.size):
            name, content = _LENGTHS.unpack(head)
            yield Row(file.read(name).decode(), file.read(content).decode(), file.read(DIGEST_BYTES))
