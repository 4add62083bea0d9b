"""Checks the base model. Every command that computes on the model calls this before it reads any data.

In: a config and the folder of its base model. Out: the tokenizer, or a ConfigError with the cause and the fix. Checks
the family and task, the sizes, the name and shape of every weight, the attention kernel, the modules that get
adapters, the tokenizer and its chat template. Reads headers and settings but no weights, which takes about a second
after the imports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s3t_ray.config.base_files import stored_weights
from s3t_ray.config.base_model import check_base
from s3t_ray.config.families import named_family
from s3t_ray.config.schema import Config
from s3t_ray.data.images.image_transform import read_transform
from s3t_ray.errors import ConfigError
from s3t_ray.train.attention import attends_to_whole_records
from s3t_ray.train.layer_groups import layer_group
from s3t_ray.train.loading.load_model import hollow_model, read_model_config
from s3t_ray.train.loading.tokenizer import check_tokenizer, load_tokenizer
from s3t_ray.train.targets import lora_targets

_ROTARY_BY_LENGTH = ("dynamic", "longrope")


def check_base_model(config: Config, folder: Path) -> Any:
    """Check that the base in `folder` fits `config`, and return its reader (a tokenizer or an ImageTransform).

    Raises ConfigError if it does not fit.
    """
    shape = check_base(config, folder)
    settings = read_model_config(folder)
    family = named_family(settings.model_type, f"{folder}/config.json")
    attends_to_whole_records(config, family, settings)
    _check_rotary(config, settings)
    model = hollow_model(config, folder, stored_weights(folder))
    lora_targets(model, family, layer_group(shape.layers, config.lora.layers_per_group, config.slices).start, config)
    if family.architecture == "vision":
        return read_transform(folder, config.task)
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, model.get_input_embeddings().weight.shape[0], config.task, folder)
    return tokenizer


def _check_rotary(config: Config, settings: Any) -> None:
    """Raise ConfigError if the rotary embedding of a record would depend on the longest record in its pack.

    These kinds of rotary embedding change if a batch is longer than the model's original context length.
    """
    told = getattr(settings, "rope_parameters", None) or {}
    kind = told.get("rope_type") if isinstance(told, dict) else None
    if kind not in _ROTARY_BY_LENGTH:
        return
    first = told.get("original_max_position_embeddings") or getattr(settings, "original_max_position_embeddings", None)
    limit = first or settings.max_position_embeddings
    if config.task.max_tokens > limit:
        raise ConfigError(
            f"task.max_tokens is {config.task.max_tokens}, but beyond {limit} tokens this model's rotary embedding "
            f"({kind}) depends on the longest record in a batch, so records would affect each other",
            f"set task.max_tokens to {limit} or less",
        )
