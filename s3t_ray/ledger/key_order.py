"""Sorts many records by key, in pieces on disk.

In: entries in any order. Out: the same entries by id HMAC. An id is a hash, so inserting rows in the order of the data
touches random pages of the index. Once the index outgrows memory, each row then costs a page read and a page write; in
the order of the index it costs a fraction of that. Uses memory for one piece, however many entries there are.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from s3t_ray.ledger.values import RecordEntry

PIECE = 500_000
"""Records per sorted piece: about 100 MB. Fewer records stay in memory, in their original order."""

_ENTRY = struct.Struct("<32s32s32s32s?ii")  # id, subject, content, digest, has a subject, shard, slice; then a sketch
_READ_BYTES = 1 << 18


def in_key_order(entries: Iterable[RecordEntry], folder: Path | None) -> Iterator[RecordEntry]:
    """The entries, sorted by id HMAC if there are many. All have sketches of the same length, or none has one.

    `folder`: for unnamed temporary files; None: the system's temporary folder.
    """
    stream = map(_pack, entries)
    piece = list(islice(stream, PIECE))
    if len(piece) < PIECE:
        yield from map(_unpack, piece)
        return
    size = len(piece[0])
    with ExitStack() as open_files:
        files: list[IO[bytes]] = []
        while piece:
            piece.sort()  # the id comes first
            files.append(open_files.enter_context(TemporaryFile(dir=folder, buffering=_READ_BYTES)))
            files[-1].writelines(piece)
            piece = list(islice(stream, PIECE))
        for file in files:
            file.seek(0)
        yield from map(_unpack, heapq.merge(*(_read(file, size) for file in files)))


def _read(file: IO[bytes], size: int) -> Iterator[bytes]:
    while packed := file.read(size):
        yield packed


def _pack(entry: RecordEntry) -> bytes:
    return _ENTRY.pack(
        entry.id_hmac,
        entry.subject_hmac or b"",
        entry.content_hmac,
        entry.digest,
        entry.subject_hmac is not None,
        entry.shard,
        entry.slice,
    ) + (entry.signature or b"")


def _unpack(packed: bytes) -> RecordEntry:
    identity, subject, content, digest, has_subject, shard, index = _ENTRY.unpack_from(packed)
    signature = packed[_ENTRY.size :] or None
    return RecordEntry(identity, subject if has_subject else None, content, digest, shard, index, signature)
