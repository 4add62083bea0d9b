"""Proposes engine settings for a base model on given GPUs: the fastest that fit in memory.

In: the model's shape and the GPUs. Out: a `Proposal`. Pure. Prefers the settings that cost the least
speed or fidelity, in this order: worker groups of one GPU without collectives; no checkpointing; a
base partitioned by ZeRO 3 over fast links; a quantized base; ZeRO 3 over slow links.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from s3t_ray.config.schema import Lora, ModelShape
from s3t_ray.errors import ConfigError
from s3t_ray.plan.memory import EngineSetting, RankMemory, rank_memory
from s3t_ray.plan.work import Work, lora_parameters

GIB = 2**30
MICRO_BATCH_TOKENS = (16_384, 8_192, 4_096, 2_048)
"""Larger packs do not speed up matrix products; smaller ones underuse the GPU."""


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a cluster, all of one kind."""

    name: str
    count: int
    memory_bytes: int  # per GPU
    fast_links: bool  # NVLink or similar between them; PCIe alone is slow
    flops_per_second: float | None = None  # peak per GPU, in bfloat16; None: unknown


H200_1 = Gpus("1 x H200", 1, 139 * GIB, True)
H100_8 = Gpus("8 x H100 80 GB", 8, 79 * GIB, True)
A100_8 = Gpus("8 x A100 80 GB", 8, 79 * GIB, True)
CARDS_24GB_4 = Gpus("4 x 24 GB", 4, 23 * GIB, False)
KNOWN_GPUS = (H200_1, H100_8, A100_8, CARDS_24GB_4)


@dataclass(frozen=True)
class Proposal:
    """Settings of `engine`, `model.quantize` and `workers` for these GPUs, and the memory that they need."""

    gpus: Gpus
    groups: int  # worker groups
    ranks: int  # per group
    zero_stage: int
    quantize: str
    micro_batch_tokens: int
    gradient_checkpointing: bool
    memory: RankMemory

    @property
    def headroom_bytes(self) -> int:
        """The free memory per GPU."""
        return self.gpus.memory_bytes - self.memory.total


def propose(shape: ModelShape, gpus: Gpus, lora_rank: int = 32) -> Proposal:
    """The first setting that fits, in bfloat16, with LoRA of this rank on all linear layers.

    Sized for the deepest stage of four layer groups that cover the entire model. Smaller groups need
    less. Raises ConfigError if nothing fits.
    """
    return propose_for(_any_work(shape, lora_rank), gpus)


def propose_for(work: Work, gpus: Gpus) -> Proposal:
    """The first bfloat16 setting with which the deepest stage of `work` fits. Raises ConfigError if none does.

    Only the base of a text model can be quantized, not that of a classifier.
    """
    for setting in _by_preference(gpus):
        if work.trained_head_parameters and setting.quantize != "none":
            continue
        memory = rank_memory(work, setting)
        if memory.total <= gpus.memory_bytes:
            return Proposal(
                gpus=gpus,
                groups=gpus.count // setting.ranks,
                ranks=setting.ranks,
                zero_stage=setting.zero_stage,
                quantize=setting.quantize,
                micro_batch_tokens=setting.micro_batch_tokens,
                gradient_checkpointing=setting.gradient_checkpointing,
                memory=memory,
            )
    raise ConfigError(
        f"a base of {work.shape.parameters:,} parameters does not fit {gpus.name}, even quantized or partitioned",
        "use more or larger GPUs, or a smaller base",
    )


def _by_preference(gpus: Gpus) -> Iterator[EngineSetting]:
    alone = EngineSetting(2, "none", 0, 1, MICRO_BATCH_TOKENS[0], gradient_checkpointing=False)
    splits = [
        replace(alone, zero_stage=3, ranks=2**power)
        for power in range(1, gpus.count.bit_length())
        if gpus.count % 2**power == 0
    ]
    quantised = [replace(alone, quantize=kind) for kind in ("8bit", "4bit")]
    layouts = [alone, *splits, *quantised] if gpus.fast_links else [alone, *quantised, *splits]
    for layout in layouts:
        for checkpointing in (False, True):
            for tokens in MICRO_BATCH_TOKENS:
                yield replace(layout, micro_batch_tokens=tokens, gradient_checkpointing=checkpointing)


def _any_work(shape: ModelShape, lora_rank: int) -> Work:
    """Work whose deepest stage reaches the lowest layer. The amount of data does not matter."""
    lora = Lora(rank=lora_rank, layers_per_group=max(1, shape.layers // 4))
    return Work(
        shape=shape,
        shards=1,
        slices=min(4, shape.layers),
        layers_per_group=lora.layers_per_group,
        lora_parameters_per_layer=lora_parameters(lora, shape),
        lora_rank_sum=lora_rank * (7 if shape.gated_mlp else 6),
        head_parameters=shape.head_parameters,
        trained_head_parameters=0,
        activation_bytes=2,
        stored_depths=(),
        gradient_checkpointing=False,
        epochs=1,
        slice_records=1.0,
        record_tokens=1.0,
        attended_tokens=1.0,
        labelled_share=1.0,
    )
