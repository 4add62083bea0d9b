"""Mid-stage checkpoints: the exact state of a stage after a step, from which training resumes after a crash.

In: each rank's tensors (weights, master weights, optimizer state) and the losses so far. Out: the same, or None.
A checkpoint is a folder `checkpoints/<stage id>/<step>/` with one safetensors file per rank; the manifest is written
last. Checkpoints are disposable: a damaged one is discarded and the stage starts again. They need no random generator
state, because dropout is seeded per step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import safetensors.torch
from pydantic import ConfigDict, ValidationError
from torch import Tensor

from s3t_ray.store.layout import MANIFEST, checkpoint_folder, checkpoint_step_folder, checkpoint_step_of
from s3t_ray.store.seal import Sealed, is_sealed_with, seal
from s3t_ray.store.store import Store
from s3t_ray.train.fence import is_overtaken
from s3t_ray.train.job import StageJob
from s3t_ray.train.ranks import Group


class CheckpointManifest(Sealed):
    """The contents of a checkpoint and the stage that it belongs to."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 1
    stage_id: str
    recipe_digest: str
    slice_digests: tuple[str, ...]
    losses: tuple[float, ...]  # of the completed steps
    rank_sha256: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The state from which one rank resumes."""

    losses: tuple[float, ...]  # of the completed steps
    tensors: dict[str, Tensor]


def save_checkpoint(
    store: Store, job: StageJob, losses: Sequence[float], tensors: Mapping[str, Tensor], group: Group
) -> None:
    """Write the checkpoint after len(losses) steps, then erase the previous one. Every rank must call this."""
    folder = checkpoint_step_folder(job.stage_id, len(losses))
    data = safetensors.torch.save({name: tensors[name].contiguous() for name in sorted(tensors)})
    store.write_bytes(f"{folder}/{_rank_file(group.rank)}", data)
    if is_overtaken(store, job):  # before the barrier: it never ends for a rank that slept until the others were dead
        delete_checkpoints(store, job.stage_id)
    digests = group.gather(hashlib.sha256(data).digest())  # also the barrier: every rank's file is there
    if group.rank != 0:
        return
    manifest = CheckpointManifest(
        stage_id=job.stage_id,
        recipe_digest=job.recipe_digest,
        slice_digests=tuple(piece.digest for piece in job.slices),
        losses=tuple(losses),
        rank_sha256=tuple(digest.hex() for digest in digests),
    )
    manifest = seal(manifest, job.seal_key)
    store.write_bytes(f"{folder}/{MANIFEST}", manifest.model_dump_json().encode())
    if is_overtaken(store, job):  # the purge has finished, so nothing else would erase this
        delete_checkpoints(store, job.stage_id)
        return
    for other in _folders(store, job.stage_id):
        if other != folder:
            store.delete(other)


def load_checkpoint(store: Store, job: StageJob, group: Group) -> Checkpoint | None:
    """The latest complete checkpoint of this stage, or None if there is none that every rank can read."""
    folders = _folders(store, job.stage_id)
    if len(set(group.gather(hashlib.sha256("\n".join(folders).encode()).digest()))) > 1:
        return None  # ranks that see different folders would make mismatched collective calls
    for folder in reversed(folders):
        found = _read(store, job, folder, group.rank)
        if not group.any(found is None):
            return found
    return None


def delete_checkpoints(store: Store, stage_id: str) -> None:
    """Erase all checkpoints of a stage."""
    store.delete(checkpoint_folder(stage_id))


def _read(store: Store, job: StageJob, folder: str, rank: int) -> Checkpoint | None:
    if not store.exists(f"{folder}/{MANIFEST}"):
        return None
    try:
        manifest = CheckpointManifest.model_validate_json(store.read_bytes(f"{folder}/{MANIFEST}"))
    except ValidationError:
        return None
    expected = (job.stage_id, job.recipe_digest, tuple(piece.digest for piece in job.slices))
    path = f"{folder}/{_rank_file(rank)}"
    if (manifest.stage_id, manifest.recipe_digest, manifest.slice_digests) != expected or not store.exists(path):
        return None
    if not is_sealed_with(manifest, job.seal_key):
        return None  # not written by this run
    data = store.read_bytes(path)
    if hashlib.sha256(data).hexdigest() != manifest.rank_sha256[rank]:
        return None
    return Checkpoint(manifest.losses, safetensors.torch.load(data))


def _folders(store: Store, stage_id: str) -> list[str]:
    """The folders of this stage's checkpoints, oldest first."""
    return sorted({checkpoint_step_of(path) for path in store.files(checkpoint_folder(stage_id))})


def _rank_file(rank: int) -> str:
    return f"rank-{rank}.safetensors"
