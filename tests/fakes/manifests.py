"""Manifests of untrained stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s3t_ray.store.manifest import ADAPTER_FILE, Manifest, SliceLearned
from s3t_ray.train.job import StageJob


def untrained_manifest(
    stage_id: str, digests: Mapping[str, str], parents: Sequence[str] = (), **fields: Any
) -> Manifest:
    """The manifest of a stage whose files have these sha256 digests by name: no steps, no tokens, no seconds.

    Its slices are 0..depth-1 unless `fields` says otherwise, as it may of every field.
    """
    made_up: dict[str, Any] = {
        "stage_id": stage_id,
        "shard": 0,
        "slices": tuple(SliceLearned(index=index, digest="d") for index in range(len(parents) + 1)),
        "parents": tuple(parents),
        "recipe_digest": "r",
        "base_digest": "b",
        "adapter_sha256": digests[ADAPTER_FILE],
        "files": dict(digests),
        "losses": (),
        "steps": 0,
        "records": 0,
        "unlabelled": 0,
        "tokens": 0,
        "seconds": 0.0,
        "versions": {},
        "machine": {},
    }
    return Manifest(**(made_up | fields))


def manifest_of(job: StageJob, digests: Mapping[str, str], **fields: Any) -> Manifest:
    """The same for the stage of `job`."""
    of_job = {
        "shard": job.shard,
        "slices": tuple(SliceLearned(index=part.slice, digest=part.digest) for part in job.slices),
        "recipe_digest": job.recipe_digest,
        "base_digest": job.base_digest,
    }
    return untrained_manifest(job.stage_id, digests, job.parents, **of_job, **fields)
