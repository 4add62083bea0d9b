"""Slices as inputs of a stage's job, without a run."""

from __future__ import annotations

from pathlib import Path

from s3t_ray.data.slices import Row, write_slice
from s3t_ray.store.layout import slice_file
from s3t_ray.store.store import Store
from s3t_ray.train.job import SliceInput

NO_SECRET = "00" * 32
"""Key of the seals. It may be public, because benchmarks prove nothing to anyone."""


def put_slice(store: Store, folder: Path, shard: int, index: int, rows: list[Row]) -> SliceInput:
    """Write the rows to the store as slice `index` of the shard."""
    file = write_slice(folder / "slice.parquet", rows)
    path = slice_file(shard, index, file.sha256)
    store.upload(file.path, path)
    return SliceInput(index, path, file.sha256, file.sha256, file.rows, NO_SECRET)
