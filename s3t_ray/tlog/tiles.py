"""Tiles (c2sp.org/tlog-tiles): a log as static files of 256 hashes, from which anyone can compute any proof.

In: entries, and a function that reads a file. Out: the files that a growing log adds; roots and proofs from existing
files. Pure, except for the reader. A full tile never changes, and the name of a partial one contains its width, so no
file is ever rewritten with different bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from s3t_ray.errors import StoreError, VerificationFailed
from s3t_ray.tlog.merkle import HASH_BYTES, leaf_hash, node_hash

HEIGHT = 8
WIDTH = 1 << HEIGHT
"""The number of hashes in a full tile."""
MAX_ENTRY_BYTES = 2**16 - 1
MOST_LEVELS = 64 // HEIGHT
_PATH = re.compile(r"tile/(entries|[0-9]+)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")

Read = Callable[[str], bytes]
"""Relative path -> bytes of a file of the log."""


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """The path of a tile of hashes. `width` below 256: the partial tile at the right edge."""
    return f"tile/{level}/{_number(index)}{_partial(width)}"


def bundle_path(index: int, width: int = WIDTH) -> str:
    """The path of a bundle of entries."""
    return f"tile/entries/{_number(index)}{_partial(width)}"


@dataclass(frozen=True)
class LogFile:
    """The contents of a file of the log: hashes of a level, or entries; `width` of them from index * 256 on."""

    level: int | None  # None: entries
    index: int
    width: int

    @property
    def path(self) -> str:
        """The file's path."""
        if self.level is None:
            return bundle_path(self.index, self.width)
        return tile_path(self.level, self.index, self.width)

    @classmethod
    def parse(cls, path: str) -> LogFile | None:
        """Parse a path; None if it is not the path of a log file."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        level = None if match[1] == "entries" else int(match[1])
        found = cls(level, int(match[2].replace("x", "").replace("/", "")), int(match[3] or WIDTH))
        return found if found.path == path and (level or 0) < MOST_LEVELS else None

    def holds(self, leaves: Sequence[bytes], subtree: Callable[[int, int], bytes]) -> bytes | None:
        """The file's bytes in the log of these leaves; None if the log is too short. `subtree`: its subtrees' roots."""
        first = self.index * WIDTH
        if self.level is None:
            return bundle(leaves[first : first + self.width]) if first + self.width <= len(leaves) else None
        height = HEIGHT * self.level
        if first + self.width > len(leaves) >> height:
            return None
        return b"".join(subtree(height, first + number) for number in range(self.width))


def read_or_cut(read: Read) -> Read:
    """Wrap `read` so that a missing partial file is derived from the full one, which may have replaced it.

    Errors of `read` for a full file are passed on.
    """

    def found(path: str) -> bytes:
        place = LogFile.parse(path)
        if place is None or place.width == WIDTH:
            return read(path)
        try:
            return read(path)
        except StoreError:
            data = read(replace(place, width=WIDTH).path)
        if place.level is None:
            return bundle(unbundled(data)[: place.width])
        return data[: place.width * HASH_BYTES]

    return found


def outgrown(old_size: int, new_size: int) -> Iterator[str]:
    """The folders of partial files that a log of `old_size` needed and that full files have replaced since."""
    level, before, after = 0, old_size, new_size
    while before:
        if before % WIDTH and after // WIDTH > before // WIDTH:
            yield tile_path(level, before // WIDTH) + ".p"
            if level == 0:
                yield bundle_path(before // WIDTH) + ".p"
        level, before, after = level + 1, before // WIDTH, after // WIDTH


def bundle(entries: Sequence[bytes]) -> bytes:
    """Encode entries as a bundle. Raises ValueError if one is too long for the format."""
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise ValueError(f"an entry has at most {MAX_ENTRY_BYTES} bytes, got {len(entry)}")
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def unbundled(data: bytes) -> list[bytes]:
    """The entries in a bundle. Raises VerificationFailed if it is truncated."""
    entries, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">H", data, at) if at + 2 <= len(data) else (MAX_ENTRY_BYTES,)
        entry = data[at + 2 : at + 2 + length]
        if len(entry) != length:
            raise VerificationFailed("a bundle of log entries is truncated", "restore the log's files from a copy")
        entries.append(entry)
        at += 2 + length
    return entries


def new_files(old_size: int, entries: Sequence[bytes], read: Read) -> Iterator[tuple[str, bytes]]:
    """The files to add when `entries` follow the first `old_size` entries: bundles, then tiles from the leaves up.

    `read` returns the partial files of the old size. Write all new files before the checkpoint that needs them.
    """
    new_size = old_size + len(entries)
    if new_size == old_size:
        return
    first = old_size // WIDTH
    kept = unbundled(read(bundle_path(first, old_size % WIDTH))) if old_size % WIDTH else []
    rows = [*kept, *entries]
    for number, start in enumerate(range(0, len(rows), WIDTH), start=first):
        part = rows[start : start + WIDTH]
        yield bundle_path(number, len(part)), bundle(part)
    hashes = [leaf_hash(entry) for entry in entries]
    level, before = 0, old_size
    while hashes:
        old_tile = read(tile_path(level, before // WIDTH, before % WIDTH)) if before % WIDTH else b""
        row = [*_hashes(old_tile), *hashes]
        above = []
        for number, start in enumerate(range(0, len(row), WIDTH), start=before // WIDTH):
            part = row[start : start + WIDTH]
            yield tile_path(level, number, len(part)), b"".join(part)
            if len(part) == WIDTH:
                above.append(_root_of_full(part))
        level, before, hashes = level + 1, before // WIDTH, above


class TiledLog:
    """Roots and proofs of a log of `size` entries, read from its tiles."""

    def __init__(self, size: int, read: Read) -> None:
        self._size = size
        self._tile = lru_cache(maxsize=256)(lambda level, index: self._read_tile(read, level, index))

    def subtree(self, level: int, index: int) -> bytes:
        """The root of the full subtree of 2^level leaves at `index` (a `merkle.SubtreeRoot`).

        Raises VerificationFailed if a tile has the wrong length.
        """
        tile_level, inside = divmod(level, HEIGHT)
        first = index << inside  # index of its first hash at the tile's level
        return _root_of_full(self._tile(tile_level, first // WIDTH)[first % WIDTH : first % WIDTH + (1 << inside)])

    def _read_tile(self, read: Read, level: int, index: int) -> list[bytes]:
        """The full tile if there is one, otherwise the partial one."""
        at_level = self._size >> (HEIGHT * level)
        width = min(WIDTH, at_level - index * WIDTH)
        path = tile_path(level, index, width)
        data = read(path)
        if len(data) != width * HASH_BYTES:
            raise VerificationFailed(
                f"log file {path} has {len(data)} bytes, not {width * HASH_BYTES}",
                "restore the log's files from a copy",
            )
        return _hashes(data)


def _hashes(data: bytes) -> list[bytes]:
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def _root_of_full(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


def _number(index: int) -> str:
    """`index` as zero-padded groups of three digits, all but the last with an x: 1234067 is x001/x234/067."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    return "/".join(reversed(groups))


def _partial(width: int) -> str:
    return "" if width == WIDTH else f".p/{width}"
