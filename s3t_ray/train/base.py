"""Loads the frozen base model and puts an (empty) LoRA module on every linear layer that some stage trains.

In: a local folder in Hugging Face format. Out: the model in evaluation mode with every weight frozen, and its PEFT
layers by full module path. Names are matched by whole path components. Nothing here is random that matters: each
stage sets its own adapters (`grouped.py`).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig
from transformers.utils import logging

from s3t_ray.config.schema import Config
from s3t_ray.errors import ConfigError, TrainError
from s3t_ray.train.attention import check_flash_attention, register_packed_sdpa, register_packed_varlen
from s3t_ray.train.families import Family, family_of
from s3t_ray.train.frozen_norm import FrozenRmsNorm, FusedRmsNorm, replace_norms
from s3t_ray.train.layer_groups import layer_group, layer_index
from s3t_ray.train.lora_linear import ADAPTER, as_one_operation
from s3t_ray.train.peft_layers import LoraConfig, LoraLayer, inject_adapter_in_model
from s3t_ray.train.quantised import compute_unpacked, quantisation
from s3t_ray.train.task_model import TaskModel, task_model
from s3t_ray.train.zero3_load import split_while_loading

__all__ = ["ADAPTER", "Base", "load_base", "precision_dtype"]


@dataclass(frozen=True)
class Base:
    """A loaded base model with its LoRA layers."""

    model: nn.Module
    family: Family
    layers: int
    lora: dict[str, LoraLayer]  # full module path -> its PEFT layer, for all layer groups
    fresh: dict[str, torch.Size]  # parameters that the base folder does not hold, the task head, and their shapes
    packed_attention: bool  # attention takes `segments` instead of a mask
    padded: bool  # a micro-batch is a padded rectangle instead of a packed row
    task: TaskModel


def precision_dtype(config: Config) -> torch.dtype:
    """Type of the base weights and the activations."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.engine.precision]


def load_base(config: Config, folder: Path, device: torch.device) -> Base:
    """Load the base in `folder` for this config; ConfigError if they do not fit each other."""
    # Its load report and progress bars would fill a worker's log.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    shape = AutoConfig.from_pretrained(folder)
    family = family_of(shape.model_type, config)
    layers = shape.num_hidden_layers
    layer_group(layers, config.lora.layers_per_group, config.slices)  # refuses more groups than layers
    attention, packed = _attention(config, family, shape, device)
    arguments: dict[str, Any] = {"dtype": precision_dtype(config), "attn_implementation": attention}
    arguments |= quantisation(config, device, precision_dtype(config))
    if device.type == "cuda" and config.engine.zero_stage < 3:
        arguments["device_map"] = {"": device}  # from the file to the GPU, without a copy of the base in CPU memory
    fresh: dict[str, torch.Size] = {}
    task = task_model(config.task)
    if config.task.head_rows:
        model, report = task.model_class().from_pretrained(
            folder,
            num_labels=config.task.head_rows,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **arguments,
        )
        if report["mismatched_keys"] or not report["missing_keys"]:
            raise ConfigError(
                f"{config.model.path} already has a task head, learned from data that no deletion reaches",
                "use the encoder it was made from, without a head: each stage trains a head of its own",
            )
        fresh = {name: model.get_parameter(name).shape for name in sorted(report["missing_keys"])}
    else:
        splits = config.engine.zero_stage == 3
        with split_while_loading(precision_dtype(config)) if splits else nullcontext():
            model = task.model_class().from_pretrained(folder, **arguments)
    if config.model.quantize == "none":
        model.to(device)
    compute_unpacked(model, precision_dtype(config))
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
    return Base(model, family, layers, lora, fresh, packed, family.architecture == "encoder", task)


def _attention(config: Config, family: Family, shape: Any, device: torch.device) -> tuple[str, bool]:
    """transformers' name of the attention to load, and whether it takes `segments`."""
    window = getattr(shape, "sliding_window", None) if getattr(shape, "use_sliding_window", True) else None
    kinds = set(getattr(shape, "layer_types", None) or ())
    if config.engine.hidden_states == "store" and len(kinds) > 1:
        raise ConfigError(
            f"{config.model.path} mixes kinds of attention layers ({', '.join(sorted(kinds))}), which stored hidden "
            "states do not support",
            "set engine.hidden_states: recompute",
        )
    wanted = config.model.attention
    slides = window is not None and config.task.max_tokens > window
    whole_records = family.architecture == "decoder" and not slides and len(kinds) <= 1
    if wanted == "flash_varlen":
        if not whole_records:
            raise ConfigError(
                f"model.attention is flash_varlen, but a layer of {config.model.path} does not attend to whole records "
                f"of task.max_tokens {config.task.max_tokens}",
                "set model.attention to sdpa",
            )
        return register_packed_varlen(device), True
    if wanted == "flash_attention_2":
        check_flash_attention()
    if whole_records and wanted == "sdpa":
        return register_packed_sdpa(), True
    return wanted, False


def _inject(model: nn.Module, family: Family, layers: int, config: Config) -> dict[str, LoraLayer]:
    """LoRA modules on the targets of all layer groups; returns them by full module path."""
    lowest = layer_group(layers, config.lora.layers_per_group, config.slices).start
    names = _targets(model, family, lowest, config)
    settings = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # PEFT divides by it; a fraction is fine
        lora_dropout=config.lora.dropout,
        use_rslora=config.lora.use_rslora,
        target_modules=names,
    )
    inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
    found = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    if set(found) != set(names):
        odd = sorted(set(found) ^ set(names))
        raise TrainError(f"PEFT put adapters on other modules than asked: {odd[:5]}", "report this: exactness is lost")
    for module in found.values():
        # Under autocast the linear layers cast their own inputs; PEFT's cast to float32 would only cost memory.
        module.cast_input_dtype_enabled = config.engine.precision == "float32"
        if config.engine.zero_stage < 3:
            as_one_operation(module)
    return found


def _targets(model: nn.Module, family: Family, lowest: int, config: Config) -> list[str]:
    """Full paths of the linear modules in layers >= lowest that `lora.targets` names."""
    wanted = config.lora.targets
    names: list[str] = []
    available: set[str] = set()
    hit: set[str] = set()
    for name, module in model.named_modules():
        layer = layer_index(name, family.layers_path)
        if layer is None or not isinstance(module, nn.Linear):
            continue
        inside = name.removeprefix(f"{family.layers_path}.{layer}.")
        available.add(inside)
        matches = {target for target in wanted if wanted != "all-linear" and f".{inside}".endswith(f".{target}")}
        hit |= matches
        if layer >= lowest and (wanted == "all-linear" or matches):
            names.append(name)
    missing = sorted(set(wanted) - hit) if wanted != "all-linear" else []
    if missing:
        raise ConfigError(
            f"lora.targets names {missing}, which no layer of {config.model.path} has",
            f"choose from {sorted(available)}, or use all-linear",
        )
    return names
