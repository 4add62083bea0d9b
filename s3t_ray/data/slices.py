"""Slices of a run on disk: rows of many places, in any order, into one file a place.

In: a stream of (place, row). Out: one SliceFile a place, the same whatever the memory. Must never
reorder the rows of a place, or leave a spill file behind. The format of a file is in `slice_file.py`.
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
"""Rows that wait in memory, in bytes; the rest waits on disk."""


def partition_rows(
    rows: Iterable[tuple[Place, Row]],
    folder: Path,
    memory_bytes: int = MEMORY_BYTES,
    places: Iterable[Place] = (),
) -> dict[Place, SliceFile]:
    """Write `rows` to `<folder>/<shard>-<slice>.parquet`, a file a place, rows in their order.

    Places in `places` get a file though no row falls there. Holds about `memory_bytes` of rows.
    Raises StoreError: the disk is full or not writable.
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
