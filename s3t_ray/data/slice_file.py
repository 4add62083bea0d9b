"""One slice on disk: a deterministic Parquet file of rows.

In: rows in order. Out: the file, its SHA-256 and its row count. Row groups end after a fixed number of
rows or bytes, so the bytes depend only on the rows, and a reader keeps one group in memory. Never writes
a time, a path or column statistics to a file, and never keeps an entire slice in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from s3t_ray.errors import StoreError

DIGEST_BYTES = 32
SLICE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
        pa.field("digest", pa.binary(DIGEST_BYTES), nullable=False),
    ]
)
_GROUP_ROWS = 1024
_GROUP_BYTES = 8 << 20
_READ_BYTES = 1 << 20
_READ_ROWS = 256


@dataclass(frozen=True, slots=True)
class Row:
    """One retained record: its id, its content (canonical JSON) and its keyed digest (32 bytes)."""

    id: str
    content: str
    digest: bytes


@dataclass(frozen=True)
class SliceFile:
    """A written slice: its path, the SHA-256 of its bytes in hex, and its number of rows."""

    path: Path
    sha256: str
    rows: int


def row_bytes(row: Row) -> int:
    """The approximate size of `row`'s data in memory, in bytes."""
    return len(row.id) + len(row.content) + DIGEST_BYTES


def write_slice(path: Path, rows: Iterable[Row]) -> SliceFile:
    """Write `rows`, in their order, to `path`, by writing to a temporary name and renaming.

    Raises StoreError if the disk is full or not writable.
    """
    partial = path.with_name(f"{path.name}.partial")
    count = 0
    with _told(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _writer(partial) as writer:
                for group in _groups(rows):
                    writer.write_table(_table(group), row_group_size=len(group))
                    count += len(group)
            digest = file_sha256(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    return SliceFile(path, digest, count)


def read_slice(path: Path) -> Iterator[Row]:
    """The rows of a slice, in the order they were written. Raises StoreError if it is missing or damaged."""
    with _told(path, "read"), pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(SLICE_SCHEMA):
            raise StoreError(f"{path} is not a slice: its columns are {file.schema_arrow.names}", "restore it")
        if file.metadata.metadata:
            # We never write metadata, and a purge would copy it.
            raise StoreError(
                f"{path} has metadata that slices do not have", "restore it from a copy of the run's storage"
            )
        for batch in file.iter_batches(batch_size=_READ_ROWS):
            columns = (batch.column(name).to_pylist() for name in SLICE_SCHEMA.names)
            yield from (Row(*values) for values in zip(*columns, strict=True))


def rewrite_slice(source: Path, target: Path, drop: frozenset[bytes]) -> SliceFile:
    """Write `source` to `target` without the rows whose digest is in `drop`, in the same order.

    The bytes equal those of a slice that never contained these rows. Raises StoreError.
    """
    return write_slice(target, (row for row in read_slice(source) if row.digest not in drop))


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex. Reads the file in chunks."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    held = 0
    for row in rows:
        group.append(row)
        held += row_bytes(row)
        if len(group) == _GROUP_ROWS or held >= _GROUP_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group


def _table(group: list[Row]) -> pa.Table:
    columns = {
        "id": [row.id for row in group],
        "content": [row.content for row in group],
        "digest": [row.digest for row in group],
    }
    return pa.table(columns, schema=SLICE_SCHEMA)


def _writer(path: Path) -> pq.ParquetWriter:
    # Dictionaries and statistics would store values a second time. The Arrow schema adds nothing to
    # Parquet's own.
    return pq.ParquetWriter(
        path,
        SLICE_SCHEMA,
        version="2.6",
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
    )


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Convert disk and Parquet errors to StoreError."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"slice {path} does not exist", "restore the run's storage") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise StoreError(f"slice {path} is damaged: {error}", "restore the run's storage from a copy") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(
            f"slice {path} cannot be {what}: {reason}", "free space, allow access, or restore the run's storage"
        ) from error
