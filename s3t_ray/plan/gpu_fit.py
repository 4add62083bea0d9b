"""Checks whether a config fits given GPUs, and proposes settings that do.

In: the config, its `Work` and the GPUs. Out: `GpuFit`. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError
from s3t_ray.plan.memory import engine_setting, rank_memory
from s3t_ray.plan.propose import Gpus, Proposal, propose_for
from s3t_ray.plan.work import Work


@dataclass(frozen=True)
class GpuFit:
    """How a config fits given GPUs."""

    gpus: Gpus
    present_bytes: int  # memory of one rank on one GPU with the config unchanged
    obstacles: tuple[str, ...]  # why the unchanged config does not run there; empty: it fits
    proposal: Proposal | None  # None: nothing fits
    settings: tuple[str, ...]  # the changes that the proposal makes, in the form of `--set`
    least_seconds: float | None  # all FLOPs at the peak rate of all GPUs; None: the rate is unknown

    @property
    def fits(self) -> bool:
        return not self.obstacles


def gpu_fit(config: Config, work: Work, gpus: Gpus, flops: float) -> GpuFit:
    """How `config` fits `gpus`. `flops`: total of its first training."""
    needed = rank_memory(work, replace(engine_setting(config), on_gpu=True)).total
    try:
        proposal = propose_for(work, gpus)
    except ConfigError:
        proposal = None
    return GpuFit(
        gpus=gpus,
        present_bytes=needed,
        obstacles=tuple(_obstacles(config, needed, gpus)),
        proposal=proposal,
        settings=() if proposal is None else _settings(config, proposal),
        least_seconds=None if gpus.flops_per_second is None else flops / (gpus.flops_per_second * gpus.count),
    )


def _obstacles(config: Config, needed: int, gpus: Gpus) -> list[str]:
    found = []
    if config.workers.gpus_per_rank == 0:
        found.append("workers.gpus_per_rank is 0: it trains on CPUs")
    wanted = config.engine.ranks * max(1, config.workers.gpus_per_rank)
    if wanted > gpus.count:
        found.append(f"a worker group needs {wanted} GPUs, and there are {gpus.count}")
    if needed > gpus.memory_bytes:
        found.append(f"a rank needs {needed / 2**30:.1f} GiB, and a GPU has {gpus.memory_bytes / 2**30:.0f}")
    return found


def _settings(config: Config, proposal: Proposal) -> tuple[str, ...]:
    """`engine.ranks=2` and so on, for the values that differ from the config."""
    values: dict[str, tuple[object, object]] = {
        "engine.precision": (config.engine.precision, "bfloat16"),
        "engine.ranks": (config.engine.ranks, proposal.ranks),
        "engine.zero_stage": (config.engine.zero_stage, proposal.zero_stage),
        "engine.micro_batch_tokens": (config.engine.micro_batch_tokens, proposal.micro_batch_tokens),
        "engine.gradient_checkpointing": (config.engine.gradient_checkpointing, proposal.gradient_checkpointing),
        "model.quantize": (config.model.quantize, proposal.quantize),
        "workers.gpus_per_rank": (config.workers.gpus_per_rank, 1),
    }
    return tuple(
        f"{name}={str(wanted).lower() if isinstance(wanted, bool) else wanted}"
        for name, (present, wanted) in values.items()
        if present != wanted
    )
