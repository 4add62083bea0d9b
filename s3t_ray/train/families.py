"""Which base models the engine can train, and where their layers lie.

In: config.json's model_type. Out: a Family. A family stands here only once its tests passed; feeding the layers of
another one with stored hidden states could break it silently (some scale the embeddings on the way in).
"""

from __future__ import annotations

from dataclasses import dataclass

from s3t_ray.config.schema import Config
from s3t_ray.config.tasks import TASKS, Architecture
from s3t_ray.errors import ConfigError


@dataclass(frozen=True)
class Family:
    """One kind of base model."""

    name: str
    architecture: Architecture
    layers_path: str  # module path of the list of layers in the model with its head
    head_parts: tuple[str, ...] = ()  # modules of a task head, in the order of the forward pass


FAMILIES = {
    "llama": Family("llama", "decoder", "model.layers"),
    "mistral": Family("mistral", "decoder", "model.layers"),
    "qwen2": Family("qwen2", "decoder", "model.layers"),
    "bert": Family("bert", "encoder", "bert.encoder.layer", ("bert.pooler", "classifier")),
    "roberta": Family("roberta", "encoder", "roberta.encoder.layer", ("classifier",)),
}


def family_of(model_type: str, config: Config) -> Family:
    """The family of `model_type`, or ConfigError when this config cannot be trained on it."""
    family = FAMILIES.get(model_type)
    if family is None:
        raise ConfigError(
            f"model.path {config.model.path} is a {model_type!r} model",
            f"use a base of one of the families {', '.join(sorted(FAMILIES))}",
        )
    needed = TASKS[config.task.kind].architecture
    if family.architecture != needed:
        fitting = sorted(name for name, other in FAMILIES.items() if other.architecture == needed)
        kinds = " or ".join(name for name, task in TASKS.items() if task.architecture == family.architecture)
        raise ConfigError(
            f"task.kind {config.task.kind} does not fit the {model_type} model at {config.model.path}",
            f"set task.kind: {kinds}, or use a base of one of the families {', '.join(fitting)}",
        )
    if family.architecture == "encoder" and config.engine.hidden_states == "store":
        raise ConfigError(
            f"engine.hidden_states is store, but {model_type} models train from padded batches, not from stored states",
            "set engine.hidden_states: recompute",
        )
    return family
