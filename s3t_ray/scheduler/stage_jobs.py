"""From a stage of the plan to the job that a worker group trains. Pure."""

from __future__ import annotations

from s3t_ray.errors import StoreError
from s3t_ray.ledger.values import RunRow, SliceState
from s3t_ray.plan.stages import Stage
from s3t_ray.run.shard_view import ShardView
from s3t_ray.train.job import SliceInput, StageJob


def stage_job(row: RunRow, view: ShardView, stage: Stage) -> StageJob:
    """The job of `stage`: its slices' files as the ledger names them, in the order they are added."""
    states = {state.slice: state for state in view.slices}
    return StageJob(
        stage_id=stage.id,
        recipe_digest=row.recipe_digest,
        base_digest=row.base_digest,
        shard=stage.shard,
        slices=tuple(_input(states[index]) for index in stage.slices),
        parents=stage.ancestors,
    )


def _input(state: SliceState) -> SliceInput:
    if state.file is None or state.file_sha256 is None or state.file_digest != state.digest:
        raise StoreError(
            f"slice {state.slice} of shard {state.shard} has no clean file: nothing may train on it",
            "wait for its purge, or run `s3t train` again to finish reading the data",
        )
    return SliceInput(state.slice, state.file, state.file_sha256, state.digest, state.records)
