"""Checks that the run's own workers made what training reads and writes: seals and bytes of derived files.

In: an open run. Out: one line per problem. Reads only, including every byte of stored hidden states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.run.integrity.seal_keys import slice_key
from s3t_ray.run.run import Run
from s3t_ray.run.scratch import scratch_folder
from s3t_ray.run.shard_view import ShardView
from s3t_ray.store import layout
from s3t_ray.store.seal import is_sealed_with
from s3t_ray.train.hidden_states.hidden_manifest import HiddenManifest, part_is_whole, part_name


def hidden_problems(run: Run) -> Iterator[str]:
    """Stored hidden states that training would refuse, or whose bytes were changed."""
    for state in run.ledger.slices():
        if state.shard == HOLDOUT_SHARD:
            continue
        root = layout.hidden_place(run.row.base_digest, state.shard, state.slice, state.digest).folder
        key = slice_key(run, state.shard, state.slice, state.digest)
        files = run.store.files(root)
        layers = {path.removeprefix(f"{root}/").split("/")[0] for path in files}
        for layer in sorted(layers):
            folder = f"{root}/{layer}"
            yield from _layer(run, folder, [path for path in files if path.startswith(f"{folder}/")], key)


def _layer(run: Run, folder: str, files: list[str], key: str) -> Iterator[str]:
    path = f"{folder}/{layout.MANIFEST}"
    if path not in files:
        if folder in files:
            yield f"{folder} is not a file that this run writes"
        return  # incomplete, or left by a kill: no stage reads it
    try:
        manifest = HiddenManifest.model_validate_json(run.store.read_bytes(path))
    except ValidationError:
        return  # another format: recomputed, never read
    if not is_sealed_with(manifest, key):
        yield f"{folder} holds hidden states that no worker of this run sealed: training makes them again"
        return
    parts = [part_name(part) for part in range(manifest.parts)]
    for file in sorted(set(files) - {path, *(f"{folder}/{name}" for name in parts)}):
        yield f"{file} was not stored with its hidden states"
    for number, name in enumerate(parts):
        with scratch_folder(run, "hidden") as cache:
            if f"{folder}/{name}" not in files or not part_is_whole(
                run.store.fetch(f"{folder}/{name}", cache), manifest, number
            ):
                yield (
                    f"{folder}/{name} does not hold the hidden states that were stored; "
                    f"remove {folder}, and training makes them again"
                )


def checkpoint_problems(run: Run, views: Mapping[int, ShardView]) -> Iterator[str]:
    """Files among the checkpoints that are not checkpoints, and checkpoints of trained stages."""
    live = frozenset(name for view in views.values() for name in view.live)
    for path in run.store.files(layout.CHECKPOINTS):
        _, name, *rest = path.split("/")
        if name in live:
            yield f"{path} is among the checkpoints of a stage that is already trained"
        elif len(rest) != 2 or not rest[0].isdigit() or not (rest[1] == layout.MANIFEST or _is_rank_file(rest[1])):
            yield f"{path} is not a checkpoint"


def _is_rank_file(name: str) -> bool:
    return name.startswith("rank-") and name.endswith(".safetensors")
