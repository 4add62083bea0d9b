"""`s3t verify`: recompute every name from the retained data, and replay stages to compare bytes.

Reads only; a replay trains in a folder of its own, which is gone afterwards. Finds, never mends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from s3t_ray.config.base_model import digest_base
from s3t_ray.data.slice_file import file_sha256, read_slice
from s3t_ray.errors import S3TError
from s3t_ray.ledger.lthash import LtHash16
from s3t_ray.ledger.values import SliceState, StageState
from s3t_ray.plan.stages import HOLDOUT_SHARD, Stage
from s3t_ray.runtime import layout
from s3t_ray.runtime.replay import replay_stages
from s3t_ray.runtime.reports import Verification
from s3t_ray.runtime.run import Run
from s3t_ray.runtime.scratch import scratch_folder
from s3t_ray.runtime.view import ShardView, view_shard
from s3t_ray.train.manifest import read_manifest


def verify(
    run: Run,
    *,
    replay: int = 0,
    address: str | None = None,
    watch: Callable[[str], None] = lambda line: None,
) -> Verification:
    """Check the run against its retained data; with `replay`, train that many live stages again from nothing.

    Every problem found is a line of the report: a slice whose rows are not those of the ledger, a
    stage whose name does not follow from the data, bytes that are not those published, bytes that
    should be gone.
    """
    problems: list[str] = []
    watch("base model: every byte")
    if digest_base(run.base) != run.row.base_digest:
        problems.append(f"the base model at {run.base} is not the one that this run was trained on")
    records = 0
    for state in run.ledger.slices():
        watch(f"shard {layout.shard_folder(state.shard)} slice {state.slice}: {state.records} records")
        problems += _check_slice(run, state)
        records += state.records
    views = {shard: view_shard(run, shard) for shard in range(run.row.shards)}
    stages = 0
    for view in views.values():
        for stage in _live(view):
            watch(f"stage {stage.id[:12]}: shard {stage.shard}, slices {list(stage.slices)}")
            problems += _check_stage(run, view, stage)
            stages += 1
        problems += [
            f"stage {name[:12]} of shard {view.plan.shard} serves, but does not follow from the retained data"
            for name in sorted(view.live - frozenset(view.plan.stages))
        ]
    problems += _left_behind(run, views)
    replayed = replay_stages(run, views, replay, address, watch) if replay else ()
    return Verification(records=records, stages=stages, problems=tuple(problems), replayed=replayed)


def _live(view: ShardView) -> Iterator[Stage]:
    return (stage for stage in view.plan.stages.values() if stage.id in view.live)


def _check_slice(run: Run, state: SliceState) -> list[str]:
    """The slice's digest from its rows' contents and the run's key, not from what the rows say of themselves."""
    where = f"slice {state.slice} of shard {layout.shard_folder(state.shard)}"
    if state.file is None:
        return [f"{where} has no file"]
    total, count, false = LtHash16(), 0, 0
    try:
        with scratch_folder(run, "verify") as folder:
            path = run.store.fetch(state.file, folder)
            if file_sha256(path) != state.file_sha256:
                return [f"{where}: {state.file} was changed: its bytes are not those that the ledger names"]
            tombstones = run.ledger.tombstones(state.shard, state.slice)
            for row in read_slice(path):
                digest = run.keys.record_digest(row.id, row.content)
                false += digest != row.digest
                if digest not in tombstones:
                    total.add([digest])
                    count += 1
    except S3TError as error:
        return [f"{where}: {error.problem}"]
    problems = []
    if false:
        problems.append(f"{where}: {false} rows whose content is not what their digest says")
    if (total.digest(), count) != (state.digest, state.records):
        problems.append(f"{where}: its {count} retained rows are not the {state.records} records of the ledger")
    return problems


def _check_stage(run: Run, view: ShardView, stage: Stage) -> list[str]:
    name = f"stage {stage.id[:12]} (shard {stage.shard}, slices {list(stage.slices)})"
    accepted = {row.id: row.adapter_sha256 for row in run.ledger.stages(stage.shard, StageState.LIVE)}
    digests = {state.slice: state.digest for state in view.slices}
    try:
        manifest = read_manifest(run.store, stage.id)
        problems = [
            f"{name}: {file} is not what was published"
            for file, sha256 in {**manifest.files, "adapter_model.safetensors": accepted[stage.id]}.items()
            if hashlib.sha256(run.store.read_bytes(f"{layout.stage_folder(stage.id)}/{file}")).hexdigest() != sha256
        ]
    except S3TError as error:
        return [f"{name}: {error.problem}"]
    learned = tuple((part.index, part.digest) for part in manifest.slices)
    if learned != tuple((index, digests[index]) for index in stage.slices):
        problems.append(f"{name}: its manifest names other data than what is retained")
    if manifest.parents != stage.ancestors or manifest.recipe_digest != run.row.recipe_digest:
        problems.append(f"{name}: its manifest names other parents or another recipe")
    return problems


def _left_behind(run: Run, views: dict[int, ShardView]) -> list[str]:
    """Bytes in the storage that no live stage and no retained slice accounts for.

    What is on its way is none: deletions that are not purged yet still have theirs.
    """
    wanted = {name for view in views.values() for name in view.plan.stages}
    known = wanted | {row.id for row in run.ledger.stages(state=StageState.STALE)}
    problems = [
        f"{folder} holds bytes of a stage that should be gone"
        for folder in sorted({"/".join(path.split("/")[:2]) for path in run.store.files(layout.STAGES)})
        if folder.split("/")[1] not in known
    ]
    slices = {state.file for state in run.ledger.slices()} | {layout.SLICE_INDEX}
    problems += [f"{path} should be gone" for path in run.store.files(layout.SLICES) if path not in slices]
    digests = {state.digest for state in run.ledger.slices() if state.shard != HOLDOUT_SHARD}
    unfinished = any(view.unclean for view in views.values())
    for path in run.store.files(layout.HIDDEN):
        if not unfinished and not digests.intersection(path.split("/")):
            problems.append(f"{path}: hidden states of data that is not retained")
    return problems
