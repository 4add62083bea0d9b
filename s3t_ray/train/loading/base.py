"""Loads the frozen base model and puts an (empty) LoRA module on every linear layer that some stage trains.

In: a local folder in Hugging Face format. Out: the model in evaluation mode with every weight frozen, and its PEFT
layers by full module path. Names match complete path components only. Random initial values do not matter here,
because each stage sets its own adapters (`grouped.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from s3t_ray.config.families import Family, check_task_fits, named_family
from s3t_ray.config.schema import Config
from s3t_ray.errors import TrainError
from s3t_ray.train.attention import choose_attention, is_padded
from s3t_ray.train.frozen_norm import FrozenRmsNorm, FusedRmsNorm, replace_norms
from s3t_ray.train.layer_groups import layer_group
from s3t_ray.train.loading.load_model import load_model, precision_dtype, read_model_config
from s3t_ray.train.lora_linear import ADAPTER, as_one_operation
from s3t_ray.train.peft_layers import LoraConfig, LoraLayer, add_lora_layers
from s3t_ray.train.targets import lora_targets
from s3t_ray.train.task_models.task_model import TaskModel, task_model

__all__ = ["ADAPTER", "Base", "load_base", "precision_dtype"]


@dataclass(frozen=True)
class Base:
    """A loaded base model with its LoRA layers."""

    model: nn.Module
    family: Family
    layers: int
    lora: dict[str, LoraLayer]  # full module path -> its PEFT layer, for all layer groups
    fresh: dict[str, torch.Size]  # shapes of the task head's parameters, which are not in the base folder
    packed_attention: bool  # attention takes `segments` instead of a mask
    padded: bool  # a micro-batch is a padded rectangle instead of a packed row
    task: TaskModel


def load_base(config: Config, folder: Path, device: torch.device) -> Base:
    """Load the base in `folder` for this config. Raises ConfigError if they do not fit together."""
    shape = read_model_config(folder)
    family = named_family(shape.model_type, f"{folder}/config.json")
    check_task_fits(family, config)
    layers = shape.num_hidden_layers
    layer_group(layers, config.lora.layers_per_group, config.slices)  # raises if the groups need too many layers
    attention, packed = choose_attention(config, family, shape, device)
    loaded = load_model(config, folder, device, attention, splits=config.engine.zero_stage == 3)
    model = loaded.model
    if device.type == "cpu" and config.engine.precision == "float32":
        replace_norms(model, FrozenRmsNorm)
    if config.engine.norms == "fused":
        replace_norms(model, FusedRmsNorm)
    model.config.use_cache = False
    lora = _inject(model, family, layers, config)
    if config.engine.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.requires_grad_(False)
    model.eval()
    padded, task = is_padded(config, family), task_model(config.task)
    return Base(model, family, layers, lora, loaded.fresh, packed, padded, task)


def _inject(model: nn.Module, family: Family, layers: int, config: Config) -> dict[str, LoraLayer]:
    """Add LoRA modules to the targets of all layer groups. Returns them by full module path."""
    lowest = layer_group(layers, config.lora.layers_per_group, config.slices).start
    names = lora_targets(model, family, lowest, config)
    settings = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # PEFT accepts a fraction
        lora_dropout=config.lora.dropout,
        use_rslora=config.lora.use_rslora,
        target_modules=names,
    )
    add_lora_layers(settings, model, ADAPTER)
    found = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    if set(found) != set(names):
        odd = sorted(set(found) ^ set(names))
        raise TrainError(f"PEFT did not put adapters on exactly the requested modules: {odd[:5]}", "report this bug")
    for module in found.values():
        # Under autocast, the linear layers cast their own inputs; PEFT's cast to float32 would only cost memory.
        module.cast_input_dtype_enabled = config.engine.precision == "float32"
        if config.engine.zero_stage < 3:
            as_one_operation(module)
    return found
