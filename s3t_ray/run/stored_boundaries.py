"""The choice of `engine.stored_boundaries: auto` for a run, so that its worker groups all store the same.

In: an open run whose data is read. Out: its config with the depths that the plan chose. The choice decides time and
disk, never weights: another one, when the data or the config has changed, needs nothing trained again.
"""

from __future__ import annotations

from s3t_ray.config.base_model import read_shape
from s3t_ray.config.schema import Config
from s3t_ray.plan.boundaries import choose_depths
from s3t_ray.plan.cost import ROW_BYTES_PER_TOKEN
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.plan.work import describe_work
from s3t_ray.run.run import Run


def with_boundaries(run: Run) -> Config:
    """The run's config for its worker groups. Tokens are estimated from the size of the rows' files."""
    config = run.config
    if config.engine.stored_boundaries != "auto":
        return config
    slices = [state for state in run.ledger.slices() if state.shard != HOLDOUT_SHARD and state.records]
    records = sum(state.records for state in slices)
    tokens = sum(run.store.size(state.file) for state in slices if state.file) / ROW_BYTES_PER_TOKEN
    every = max(1, round(records / (1 - config.data.holdout)))  # the plan counts held-out ones too
    work = describe_work(config, every, max(1.0, tokens / max(1, records)), 1.0, read_shape(run.base))
    depths = choose_depths(config, work, [run.orders(shard) for shard in range(config.shards)])
    return config.model_copy(update={"engine": config.engine.model_copy(update={"stored_boundaries": depths})})
