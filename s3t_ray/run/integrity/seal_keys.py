"""Keys of jobs: each seals the results of one stage, or of one slice in one state of its data."""

from __future__ import annotations

from s3t_ray.run.run import Run
from s3t_ray.store.manifest import Manifest
from s3t_ray.store.seal import is_sealed_with


def stage_key(run: Run, stage_id: str) -> str:
    """Key of a stage's manifest and checkpoints, in hex."""
    return run.keys.seal_key("stage", run.ledger.run_id, stage_id)


def slice_key(run: Run, shard: int, slice_index: int, digest: str) -> str:
    """Key of data derived from a slice while its retained records have this digest, in hex."""
    return run.keys.seal_key("slice", run.ledger.run_id, str(shard), str(slice_index), digest)


def is_announced(run: Run, manifest: Manifest) -> bool:
    """Whether a worker of this run made this stage: only such workers have the key."""
    return is_sealed_with(manifest, stage_key(run, manifest.stage_id))
