"""A fence in the storage: what a purge leaves for workers that were asleep while it erased.

In: the digests that the slices of a shard have now. Out: a small file a shard, `fences/<shard>.json`. A worker reads it
before it publishes anything and again afterwards: a job whose slices have other digests was overtaken by a deletion,
and whoever finds that erases what it wrote. It holds digests only. No file: no deletion was purged in this shard.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob

FENCES = "fences"


class Fence(BaseModel):
    """The digests of a shard's slices when it was last purged."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 1
    slices: dict[str, str]  # slice -> digest


def raise_fence(store: Store, shard: int, digests: Mapping[int, str]) -> None:
    """From now on nothing that learned other data of this shard may stay. Written before anything is erased."""
    fence = Fence(slices={str(index): digest for index, digest in sorted(digests.items())})
    store.write_bytes(fence_file(shard), fence.model_dump_json().encode())


def is_overtaken(store: Store, job: StageJob) -> bool:
    """Whether a purge has raised a fence against the data of this job. An unreadable fence stops nobody."""
    path = fence_file(job.shard)
    if not store.exists(path):
        return False
    try:
        slices = Fence.model_validate_json(store.read_bytes(path)).slices
    except ValidationError:
        return False  # not ours: an audit says so
    return any(slices.get(str(piece.slice), piece.digest) != piece.digest for piece in job.slices)


def fence_file(shard: int) -> str:
    """Where the fence of a shard stands."""
    return f"{FENCES}/{shard}.json"
