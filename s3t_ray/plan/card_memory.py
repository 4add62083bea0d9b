"""Checks that a stage fits its GPU, before anything is loaded.

In: the config, the base model's shape, a GPU. Out: nothing, a warning, or a ConfigError with settings that fit. Pure.
The plan's figure is an estimate, so an excess of less than `TOLERANCE` only gives a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from s3t_ray.config.schema import Config, ModelShape
from s3t_ray.errors import ConfigError
from s3t_ray.plan.memory import EngineSetting, RankMemory, engine_setting, rank_memory
from s3t_ray.plan.work import Work, describe_work

GIB = 2**30
TOLERANCE = 0.1
"""The fraction of the card's memory by which the estimate may exceed it before the run is refused."""
LEAST_TOKENS = 512
"""Smaller packs underuse a GPU."""


@dataclass(frozen=True)
class Card:
    """One GPU."""

    name: str
    memory_bytes: int


def check_card(config: Config, shape: ModelShape, card: Card) -> str | None:
    """None if the deepest stage fits `card`, a warning if it may not fit. Raises ConfigError if it cannot fit."""
    # The worst case for a pack: records of maximum length with every token labelled.
    work = describe_work(config, 1, config.task.max_tokens, 1.0, shape)
    setting = engine_setting(config)
    needed = rank_memory(work, setting)
    if needed.total <= card.memory_bytes:
        return None
    problem = f"a rank needs {_parts(needed)} by estimate, and {card.name} has {card.memory_bytes / GIB:.1f} GiB"
    fitting = [f"{change} ({memory / GIB:.1f} GiB)" for change, memory in _remedies(work, setting, card)]
    fix = f"one of these fits: {'; '.join(fitting)}" if fitting else "use larger GPUs, or a smaller base model"
    if needed.total > (1 + TOLERANCE) * card.memory_bytes:
        raise ConfigError(problem, fix)
    return f"{problem}: it may run out of memory; {fix}"


def _parts(memory: RankMemory) -> str:
    return (
        f"{memory.total / GIB:.1f} GiB (base {memory.base / GIB:.1f}, activations {memory.activations / GIB:.1f}, "
        f"adapters {memory.adapters / GIB:.1f}, logits and reserve {(memory.logits + memory.reserve) / GIB:.1f})"
    )


def _remedies(work: Work, setting: EngineSetting, card: Card) -> Iterator[tuple[str, int]]:
    """The smallest change of each kind that fits, with the bytes that it needs."""
    for kind in _changes(setting):
        for change, changed in kind:
            memory = rank_memory(work, changed).total
            if memory <= card.memory_bytes:
                yield change, memory
                break


def _changes(setting: EngineSetting) -> Iterator[list[tuple[str, EngineSetting]]]:
    if not setting.gradient_checkpointing:
        yield [("engine.gradient_checkpointing: true", replace(setting, gradient_checkpointing=True))]
    halves = [setting.micro_batch_tokens >> power for power in range(1, 8)]
    yield [
        (f"engine.micro_batch_tokens: {tokens}", replace(setting, micro_batch_tokens=tokens))
        for tokens in halves
        if tokens >= LEAST_TOKENS
    ]
    if setting.quantize == "none" and setting.zero_stage < 3:
        yield [(f"model.quantize: {bits}", replace(setting, quantize=bits)) for bits in ("8bit", "4bit")]
    if setting.quantize == "none":
        yield [
            (f"engine.zero_stage: 3 with engine.ranks: {ranks}", replace(setting, zero_stage=3, ranks=ranks))
            for ranks in (2, 4, 8)
            if ranks > setting.ranks
        ]
