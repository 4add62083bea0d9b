"""Stages that a predecessor published and had no time to have accepted: accepted, not trained again."""

from __future__ import annotations

import hashlib

from s3t_ray.plan.stages import compare
from s3t_ray.runtime import layout
from s3t_ray.runtime.purge import purge_bytes
from s3t_ray.runtime.run import Run
from s3t_ray.runtime.view import ShardView
from s3t_ray.train.manifest import read_manifest


def adopt_published(run: Run, epoch: int, view: ShardView) -> frozenset[str]:
    """Accept the shard's wanted stages that lie published in the store; the ids accepted.

    The manifest is written last, so what has one is whole; the adapter's bytes are checked against
    it all the same. What fails the check is erased and trained again.
    """
    digests = {state.slice: state.digest for state in view.slices}
    adopted: set[str] = set()
    missing = compare(view.plan, view.live).missing
    for stage in sorted((view.plan.stages[name] for name in missing), key=lambda stage: stage.depth):
        folder = layout.stage_folder(stage.id)
        if not run.store.exists(f"{folder}/{layout.MANIFEST}"):
            continue
        if stage.parent is not None and stage.parent not in view.live | adopted:
            continue  # its parent must be trained first; then this one is looked at again, at the next start
        manifest = read_manifest(run.store, stage.id)
        actual = hashlib.sha256(run.store.read_bytes(f"{folder}/adapter_model.safetensors")).hexdigest()
        inputs = {index: digests[index] for index in stage.slices}
        if actual == manifest.adapter_sha256 and run.ledger.accept_stage(epoch, stage, actual, inputs):
            adopted.add(stage.id)
        else:
            purge_bytes(run, stage.id)
    return frozenset(adopted)
