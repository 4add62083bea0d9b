"""Which base models the engine can train, and where their layers lie.

In: config.json's model_type. Out: a Family. A family stands here only once its tests passed; feeding the layers of
another one with stored hidden states could break it silently (some scale the embeddings on the way in).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError


@dataclass(frozen=True)
class Family:
    """One kind of base model."""

    name: str
    task: Literal["causal_lm", "classification"]
    layers_path: str  # module path of the list of layers in the model with its head


FAMILIES = {
    "llama": Family("llama", "causal_lm", "model.layers"),
    "mistral": Family("mistral", "causal_lm", "model.layers"),
    "qwen2": Family("qwen2", "causal_lm", "model.layers"),
    "bert": Family("bert", "classification", "bert.encoder.layer"),
    "roberta": Family("roberta", "classification", "roberta.encoder.layer"),
}


def family_of(model_type: str, config: Config) -> Family:
    """The family of `model_type`, or ConfigError when this config cannot be trained on it."""
    family = FAMILIES.get(model_type)
    if family is None:
        raise ConfigError(
            f"model.path {config.model.path} is a {model_type!r} model",
            f"use a base of one of the families {', '.join(sorted(FAMILIES))}",
        )
    if family.task != config.task.kind:
        fitting = sorted(name for name, other in FAMILIES.items() if other.task == config.task.kind)
        raise ConfigError(
            f"task.kind {config.task.kind} does not fit the {model_type} model at {config.model.path}",
            f"set task.kind: {family.task}, or use a base of one of the families {', '.join(fitting)}",
        )
    if family.task == "classification" and config.engine.hidden_states == "store":
        raise ConfigError(
            f"engine.hidden_states is store, but {model_type} models train from padded batches, not from stored states",
            "set engine.hidden_states: recompute",
        )
    return family
