"""Estimates the memory of one rank (of its GPU, or of its process on a CPU), in bytes, at its most demanding stage.

In: `Work` and the engine's settings. Out: `RankMemory`. Pure. The activation figures are the bytes
per token and layer that autograd keeps for a Llama in transformers 5.23 with adapters on all linear
layers. A test compares them with the engine, to the byte for packed rows on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.plan.work import Work, linear_sizes

LOGITS_BLOCK_NUMBERS = 1 << 24
"""Maximum numbers per block of logits. The full [tokens x vocabulary] matrix is never allocated."""
RESERVE_BYTES = 3 * 2**29
"""CUDA context, cuBLAS workspaces, communication buffers: 1.5 GiB."""
FRAGMENTATION = 1.08
"""A GPU's allocator holds a few percent more than the tensors need."""
CPU_LIBRARIES_BYTES = 100 * 2**20
"""The memory of a training process beyond its imports."""
CPU_LAYERS_HELD = 7
"""A CPU's allocator keeps freed blocks for reuse. On SmolLM2-135M this was as much as the activations
of this many trained layers (packs of 318 to 2,017 tokens, with and without checkpointing)."""


@dataclass(frozen=True)
class EngineSetting:
    """The engine settings that affect memory."""

    precision_bytes: int  # per unquantized base weight, and per activation
    quantize: str  # none, 8bit, 4bit
    zero_stage: int
    ranks: int
    micro_batch_tokens: int
    gradient_checkpointing: bool
    eager_attention: bool = False
    fused_norms: bool = False
    on_gpu: bool = True  # a CPU needs no CUDA context


@dataclass(frozen=True)
class RankMemory:
    """The peak memory of one rank, in bytes."""

    base: int
    adapters: int  # parameters in float32, gradients and Adam's two moments
    activations: int
    logits: int
    reserve: int

    @property
    def total(self) -> int:
        return self.base + self.adapters + self.activations + self.logits + self.reserve


def engine_setting(config: Config) -> EngineSetting:
    """The settings of a config."""
    return EngineSetting(
        precision_bytes=2 if config.engine.precision == "bfloat16" else 4,
        quantize=config.model.quantize,
        zero_stage=config.engine.zero_stage,
        ranks=config.engine.ranks,
        micro_batch_tokens=config.engine.micro_batch_tokens,
        gradient_checkpointing=config.engine.gradient_checkpointing,
        eager_attention=config.model.attention == "eager",
        fused_norms=config.engine.norms == "fused",
        on_gpu=config.workers.gpus_per_rank > 0,
    )


def rank_memory(work: Work, setting: EngineSetting) -> RankMemory:
    """The memory of one rank while the deepest stage trains."""
    activations = _activation_bytes(work, setting)
    return RankMemory(
        base=base_bytes(work.shape, setting),
        adapters=_adapter_bytes(work, setting),
        activations=activations,
        logits=_logits_bytes(work, setting),
        reserve=_reserve_bytes(work, setting, activations),
    )


def base_bytes(shape: ModelShape, setting: EngineSetting) -> int:
    """The bytes of the frozen base on one rank.

    Quantization covers the linear modules of the layers (8 bit: 1 byte per weight; 4 bit: half a byte
    per weight and one float32 scale per 64 weights), but not embeddings and head. One matrix at a time
    is unpacked. A quantized base is not partitioned. ZeRO 3 keeps 1 / ranks of the weights, plus the
    two active layers and the vocabulary matrix in full.
    """
    layers = shape.layers * shape.layer_parameters
    vocabulary = shape.parameters - layers
    if setting.quantize != "none":
        rate = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}[setting.quantize]
        unpacked = max(inputs * outputs for inputs, outputs in linear_sizes(shape).values())
        return round(layers * rate) + (vocabulary + unpacked) * setting.precision_bytes
    if setting.zero_stage < 3 or setting.ranks == 1:
        return (layers + vocabulary) * setting.precision_bytes
    whole = 2 * shape.layer_parameters + shape.head_parameters
    return round(((layers + vocabulary) / setting.ranks + whole) * setting.precision_bytes)


def _adapter_bytes(work: Work, setting: EngineSetting) -> int:
    """The float32 adapters of all groups, and gradients (4 bytes) and Adam's moments (8) of the one in training.

    ZeRO 1 partitions the moments over the ranks, ZeRO 2 also the gradients, ZeRO 3 also the parameters
    (Rajbhandari et al. 2020, 1910.02054).
    """
    trained = work.adapter_parameters()
    split = [setting.ranks if setting.zero_stage >= stage else 1 for stage in (3, 2, 1)]
    every = work.all_groups * work.lora_parameters_per_layer + work.trained_head_parameters
    return round(every * 4 / split[0] + trained * 4 / split[1] + trained * 8 / split[2])


def _activation_bytes(work: Work, setting: EngineSetting) -> int:
    """The activations of one micro-batch for the backward pass, in the trained group and the layers above it."""
    own, above = work.trained_layers, work.all_groups - work.trained_layers
    trained, passed = (layer_activation_bytes(work, setting, trains) for trains in (True, False))
    tokens = setting.micro_batch_tokens
    if setting.gradient_checkpointing:  # one hidden state per layer, and all activations of one layer at a time
        states = (own + above) * work.shape.hidden * setting.precision_bytes
        return round(tokens * (states + trained))
    return round(tokens * (own * trained + above * passed))


def _reserve_bytes(work: Work, setting: EngineSetting, activations: int) -> int:
    """The memory that the process and its allocator hold beyond the tensors."""
    if setting.on_gpu:
        return RESERVE_BYTES + round((FRAGMENTATION - 1) * activations)
    held = CPU_LAYERS_HELD * setting.micro_batch_tokens * layer_activation_bytes(work, setting, trains=True)
    return CPU_LIBRARIES_BYTES + round(held)


def layer_activation_bytes(work: Work, setting: EngineSetting, trains: bool) -> float:
    """The bytes per token and layer that autograd keeps; `trains`: whether the layer's adapters are trained.

    With D hidden size, I intermediate size, K width of the keys, R sum of the adapted modules' ranks,
    H heads: in float32, 28 D + 16 I + 8 K + 4 R if trained and 16 D + 12 I + 8 K if not; in bfloat16
    (autocast), 18 D + 8 I + 4 K + 2 R and 12 D + 6 I + 4 K, plus 2 D + 4 K if the adapter is computed
    separately from its linear layer (ZeRO 3), minus 4 D with fused norms (derived, not measured).
    Attention and norms always add 4 H + 8 per token. Eager attention also keeps its scores twice,
    heads x tokens per row; the other kernels keep none.
    """
    shape, unit = work.shape, setting.precision_bytes
    keys = shape.kv_heads * shape.head_dim
    if trains:
        hidden_rate, inner_rate, rank_rate = (28 if unit == 4 else 18), 4 * unit, unit
    else:
        hidden_rate, inner_rate, rank_rate = (16 if unit == 4 else 12), 3 * unit, 0
    if setting.fused_norms and unit == 2:
        hidden_rate -= 4  # two norms keep their input unchanged instead of a float32 copy
    apart = unit == 2 and setting.zero_stage == 3
    scores = 2 * unit * shape.heads * setting.micro_batch_tokens if setting.eager_attention else 0
    return (
        hidden_rate * shape.hidden
        + inner_rate * shape.intermediate
        + 2 * unit * keys
        + rank_rate * work.lora_rank_sum
        + (2 * shape.hidden + 4 * keys if apart else 0)
        + 4 * shape.heads
        + 8
        + scores
    )


def _logits_bytes(work: Work, setting: EngineSetting) -> int:
    """One block of logits in float32, and with bfloat16 also as computed and cast back; 0 for a task head."""
    if work.trained_head_parameters:
        return 0
    wanted = round(setting.micro_batch_tokens * work.labelled_share * work.shape.vocabulary)
    return min(LOGITS_BLOCK_NUMBERS, wanted) * (4 if setting.precision_bytes == 4 else 8)
