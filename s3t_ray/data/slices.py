"""Writes the slices of a run to disk: rows of many places, in any order, to one file per place.

In: a stream of (place, row). Out: one SliceFile per place, independent of the memory limit. Never
reorders the rows of a place, or leaves a spill file behind. `slice_file.py` defines the file format.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from s3t_ray.data.partition import Place
from s3t_ray.data.readers.spill import Spill
from s3t_ray.data.slice_file import SLICE_SCHEMA, Row, SliceFile, read_slice, rewrite_slice, write_slice
from s3t_ray.errors import StoreError

__all__ = ["SLICE_SCHEMA", "Row", "SliceFile", "partition_rows", "read_slice", "rewrite_slice", "write_slice"]

MEMORY_BYTES = 256 << 20
"""Maximum bytes of buffered rows in memory; the rest is buffered on disk."""


def partition_rows(
    rows: Iterable[tuple[Place, Row]],
    folder: Path,
    memory_bytes: int = MEMORY_BYTES,
    places: Iterable[Place] = (),
) -> dict[Place, SliceFile]:
    """Write `rows` to `<folder>/<shard>-<slice>.parquet`, one file per place, with rows in their order.

    Every place in `places` gets a file, even without rows. Keeps about `memory_bytes` of rows in memory.
    Raises StoreError if the disk is full or not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        spills = Path(tempfile.mkdtemp(prefix="tmp-spill-", dir=folder))
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror}", "free space, or allow writing") from error
    try:
        spill = Spill(spills, memory_bytes)
        for place, row in rows:
            spill.add(place, row)
        return {
            place: write_slice(folder / f"{place.shard}-{place.slice}.parquet", spill.take(place))
            for place in sorted({*spill.places, *places})
        }
    finally:
        shutil.rmtree(spills)
