"""Mid-stage checkpoints: the exact state of a stage after some step, to go on from after a crash.

In: each rank's tensors (weights, master weights, optimizer state) and the losses so far. Out: the same, or None.
They lie under `checkpoints/<stage id>/<step>/`, a safetensors file a rank, the manifest last. Disposable: a damaged
one is thrown away and the stage starts again. No generator state is needed, as dropout is seeded by step.
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
    """What a checkpoint holds, and of which stage."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 1
    stage_id: str
    recipe_digest: str
    slice_digests: tuple[str, ...]
    losses: tuple[float, ...]  # of the steps done
    rank_sha256: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """Where to go on from, on one rank."""

    losses: tuple[float, ...]  # of the steps done
    tensors: dict[str, Tensor]


def save_checkpoint(
    store: Store, job: StageJob, losses: Sequence[float], tensors: Mapping[str, Tensor], group: Group
) -> None:
    """Write the checkpoint after len(losses) steps (every rank calls), and then erase the one before."""
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
    if is_overtaken(store, job):  # the purge is over: nobody else would look here again
        delete_checkpoints(store, job.stage_id)
        return
    for other in _folders(store, job.stage_id):
        if other != folder:
            store.delete(other)


def load_checkpoint(store: Store, job: StageJob, group: Group) -> Checkpoint | None:
    """The latest whole checkpoint of this stage, or None when there is none that every rank can read."""
    folders = _folders(store, job.stage_id)
    if len(set(group.gather(hashlib.sha256("\n".join(folders).encode()).digest()))) > 1:
        return None  # ranks that see different folders would ask each other different questions
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
        return None  # nobody of this run made it
    data = store.read_bytes(path)
    if hashlib.sha256(data).hexdigest() != manifest.rank_sha256[rank]:
        return None
    return Checkpoint(manifest.losses, safetensors.torch.load(data))


def _folders(store: Store, stage_id: str) -> list[str]:
    """Folders of this stage's checkpoints, oldest first."""
    return sorted({checkpoint_step_of(path) for path in store.files(checkpoint_folder(stage_id))})


def _rank_file(rank: int) -> str:
    return f"rank-{rank}.safetensors"
