"""The one check of the base model, before any data is read, by every command that computes on it.

In: a config and the folder of its base model. Out: the tokenizer, or a ConfigError with the cause and the fix. What
is checked: family and task, sizes, every weight's name and shape, the attention kernel, the modules that get adapters,
the tokenizer and its chat template. Reads headers and settings, never a weight: about a second after the imports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s3t_ray.config.base_files import stored_weights
from s3t_ray.config.base_model import check_base
from s3t_ray.config.families import named_family
from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError
from s3t_ray.train.attention import attends_to_whole_records
from s3t_ray.train.layer_groups import layer_group
from s3t_ray.train.loading.load_model import hollow_model, read_model_config
from s3t_ray.train.loading.tokenizer import check_tokenizer, load_tokenizer
from s3t_ray.train.targets import lora_targets

_ROTARY_BY_LENGTH = ("dynamic", "longrope")


def check_base_model(config: Config, folder: Path) -> Any:
    """The tokenizer of the base in `folder`, once everything about the base is known to fit `config`."""
    shape = check_base(config, folder)
    settings = read_model_config(folder)
    family = named_family(settings.model_type, f"{folder}/config.json")
    attends_to_whole_records(config, family, settings)
    _check_rotary(config, settings)
    model = hollow_model(config, folder, stored_weights(folder))
    lora_targets(model, family, layer_group(shape.layers, config.lora.layers_per_group, config.slices).start, config)
    tokenizer = load_tokenizer(folder)
    check_tokenizer(tokenizer, model.get_input_embeddings().weight.shape[0], config.task, folder)
    return tokenizer


def _check_rotary(config: Config, settings: Any) -> None:
    """ConfigError where the positions of a record would depend on the longest record beside it in its pack.

    Rotary embeddings of these kinds change once a batch is longer than the model was first trained for.
    """
    told = getattr(settings, "rope_parameters", None) or {}
    kind = told.get("rope_type") if isinstance(told, dict) else None
    if kind not in _ROTARY_BY_LENGTH:
        return
    first = told.get("original_max_position_embeddings") or getattr(settings, "original_max_position_embeddings", None)
    limit = first or settings.max_position_embeddings
    if config.task.max_tokens > limit:
        raise ConfigError(
            f"task.max_tokens = {config.task.max_tokens}: beyond {limit} tokens this model's rotary embedding "
            f"({kind}) depends on the longest record of a batch, so records would not be learned alone",
            f"set task.max_tokens to {limit} or less",
        )
