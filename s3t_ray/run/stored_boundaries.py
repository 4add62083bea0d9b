"""The choice of `engine.stored_boundaries: auto` for a run, so that all its worker groups store the same.

In: an open run that has its data. Out: its config with the depths that the plan chose. The choice affects time and
disk, never weights: if it changes with the data or the config, nothing has to be retrained.
"""

from __future__ import annotations

from s3t_ray.config.base_model import read_shape
from s3t_ray.config.schema import Config
from s3t_ray.plan.boundaries import choose_depths
from s3t_ray.plan.cost import ROW_BYTES_PER_TOKEN
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.plan.work import describe_work
from s3t_ray.run.run import Run
from s3t_ray.store import layout


def with_boundaries(run: Run) -> Config:
    """The run's config for its worker groups. Tokens are estimated from the size of the rows' files."""
    config = run.config
    if config.engine.stored_boundaries != "auto":
        return config
    slices = [state for state in run.ledger.slices() if state.shard != HOLDOUT_SHARD and state.records]
    records = sum(state.records for state in slices)
    # In a storage from a backup, some files are older and have other names until the scheduler starts.
    there = frozenset(run.store.files(layout.SLICES))
    sizes = [(state.records, run.store.size(state.file)) for state in slices if state.file in there and state.file]
    tokens = sum(size for _, size in sizes) / ROW_BYTES_PER_TOKEN
    a_record = max(1.0, tokens / max(1, sum(count for count, _ in sizes)))
    every = max(1, round(records / (1 - config.data.holdout)))  # the plan also counts held-out records
    work = describe_work(config, every, a_record, 1.0, read_shape(run.base))
    depths = choose_depths(config, work, [run.orders(shard) for shard in range(config.shards)])
    return config.model_copy(update={"engine": config.engine.model_copy(update={"stored_boundaries": depths})})
