"""From a stage of the plan to the job that a worker group trains, with the keys that seal what it makes."""

from __future__ import annotations

from s3t_ray.config.recipe import RECIPE_FORMAT, recipe
from s3t_ray.config.schema import Config
from s3t_ray.errors import StoreError, TrainError
from s3t_ray.ledger.values import SliceState
from s3t_ray.plan.identity import recipe_digest
from s3t_ray.plan.stages import Stage
from s3t_ray.run.run import Run
from s3t_ray.run.seal_keys import slice_key, stage_key
from s3t_ray.run.shard_view import ShardView
from s3t_ray.train.job import SliceInput, StageJob


def stage_job(run: Run, view: ShardView, stage: Stage) -> StageJob:
    """The job of `stage`: its slices' files as the ledger names them, in the order they are added."""
    states = {state.slice: state for state in view.slices}
    return StageJob(
        stage_id=stage.id,
        recipe_digest=run.row.recipe_digest,
        base_digest=run.row.base_digest,
        shard=stage.shard,
        slices=tuple(_input(run, states[index]) for index in stage.slices),
        parents=stage.ancestors,
        seal_key=stage_key(run, stage.id),
    )


def check_recipe_of(job: StageJob, config: Config) -> None:
    """TrainError unless this version of the code trains, under `config`, what the job's stage is named by.

    A deletion heals whatever run it is asked to, one begun by another version or whose config was edited
    in the storage included: nothing else stands between such a run and weights under a false name.
    """
    ours = recipe_digest(recipe(config, job.base_digest))
    if ours != job.recipe_digest:
        raise TrainError(
            f"stage {job.stage_id[:12]} is named by recipe {job.recipe_digest[:12]}, but this config and this version "
            f"(recipe format {RECIPE_FORMAT}) train recipe {ours[:12]}",
            "run `s3t train` with the run's config, which names what differs",
        )


def _input(run: Run, state: SliceState) -> SliceInput:
    if state.file is None or state.file_sha256 is None or state.file_digest != state.digest:
        raise StoreError(
            f"slice {state.slice} of shard {state.shard} has no clean file: nothing may train on it",
            "wait for its purge, or run `s3t train` again to finish reading the data",
        )
    key = slice_key(run, state.shard, state.slice, state.digest)
    return SliceInput(state.slice, state.file, state.file_sha256, state.digest, state.records, key)
