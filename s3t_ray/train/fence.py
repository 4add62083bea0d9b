"""Fence files in the storage: they stop workers that were suspended during a purge from restoring erased data.

In: the current digests of a shard's slices. Out: one small file per shard, `fences/<shard>.json`, with digests only. A
worker reads it before and after it publishes anything. If the slices of its job have other digests, a deletion has
overtaken the job and the worker erases what it wrote. No file means that nothing was purged in this shard.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob

FENCES = "fences"


class Fence(BaseModel):
    """The digests of a shard's slices at its last purge."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 1
    slices: dict[str, str]  # slice -> digest


def raise_fence(store: Store, shard: int, digests: Mapping[int, str]) -> None:
    """Write the fence of a shard: nothing derived from other data may remain. Call it before erasing anything."""
    fence = Fence(slices={str(index): digest for index, digest in sorted(digests.items())})
    store.write_bytes(fence_file(shard), fence.model_dump_json().encode())


def is_overtaken(store: Store, job: StageJob) -> bool:
    """Whether a purge has fenced off the data of this job. An unreadable fence does not stop the job."""
    path = fence_file(job.shard)
    if not store.exists(path):
        return False
    try:
        slices = Fence.model_validate_json(store.read_bytes(path)).slices
    except ValidationError:
        return False  # not written by us: an audit reports it
    return any(slices.get(str(piece.slice), piece.digest) != piece.digest for piece in job.slices)


def fence_file(shard: int) -> str:
    """The store path of a shard's fence."""
    return f"{FENCES}/{shard}.json"
