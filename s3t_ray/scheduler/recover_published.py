"""Accepts stages that were published but not accepted because their scheduler died, without retraining them.

Accepts only stages sealed by the worker that had the job, and erases all others.
"""

from __future__ import annotations

from s3t_ray.ledger.values import StageState
from s3t_ray.plan.stages import Stage, compare
from s3t_ray.run.integrity.damage import is_whole
from s3t_ray.run.integrity.seal_keys import is_announced
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView
from s3t_ray.scheduler.purge import purge_bytes
from s3t_ray.store import layout
from s3t_ray.store.published_stage import read_manifest


def adopt_published(run: Run, epoch: int, view: ShardView) -> frozenset[str]:
    """Accept the shard's wanted stages that are published in the store. Returns the accepted ids."""
    adopted: set[str] = set()
    missing = compare(view.plan, view.live).missing
    for stage in sorted((view.plan.stages[name] for name in missing), key=lambda stage: stage.depth):
        if stage.parent is not None and stage.parent not in view.live | adopted:
            continue  # its parent must be trained first; the next start checks this stage again
        if adopt_stage(run, epoch, view, stage):
            adopted.add(stage.id)
    return frozenset(adopted)


def adopt_stage(run: Run, epoch: int, view: ShardView, stage: Stage) -> bool:
    """Accept one wanted stage if it is published in the store, or erase it if it is damaged.

    The manifest is written last, so a stage with a manifest is complete. Its bytes are checked anyway.
    """
    if not run.store.exists(f"{layout.stage_folder(stage.id)}/{layout.MANIFEST}"):
        return False
    digests = {state.slice: state.digest for state in view.slices}
    inputs = {index: digests[index] for index in stage.slices}
    # A stage that is wanted again before its bytes were purged must have its former bytes.
    known = {row.id: row.adapter_sha256 for row in run.ledger.stages(stage.shard, StageState.STALE)}
    if is_whole(run, stage.id, known.get(stage.id)):
        manifest = read_manifest(run.store, stage.id)
        adapter = manifest.adapter_sha256
        # An attacker with write access to the storage could put an erased adapter here under a wanted name.
        if is_announced(run, manifest) and run.ledger.accept_stage(epoch, stage, adapter, inputs):
            run.store.delete(layout.checkpoint_folder(stage.id))  # its publisher was killed before it could
            return True
    purge_bytes(run, stage.id)
    return False
